"""Tasks with options: retries, limits, serial queues, timeouts, levels. They keep a journal, as those of `work.py`."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import rota

from .work import note

serial = rota.Queue("serial", serial=True)
narrow = rota.Queue("narrow", max_concurrency=2)


@rota.on_error
def remember(error: BaseException) -> None:
    """What an error service would be told."""
    job = rota.current_job()
    reports = getattr(error, "reports", None)
    if reports is not None:
        with Path(reports).open("a") as file:
            file.write(f"{job.id} {job.attempt} {error}\n")


def starts(journal: str) -> int:
    return sum(line.startswith("start") for line in Path(journal).read_text().splitlines())


class Trouble(Exception):
    def __init__(self, text: str, reports: str) -> None:
        super().__init__(text)
        self.reports = reports


def quickly(attempt: int) -> float:
    return 0.05 * attempt


def hopeless(attempt: int) -> float:
    raise LookupError(f"no delay for attempt {attempt}")


@rota.task(retry_delay=quickly, max_attempts=4)
def fail_until(journal: str, reports: str, good: int) -> int:
    """Fails before attempt number `good`."""
    note(journal, "start")
    attempt = rota.current_job().attempt
    if attempt < good:
        raise Trouble(f"attempt {attempt}", reports)
    return attempt


@rota.task(retry_delay=lambda attempt: 3600.0)
def fail_for_now() -> None:
    raise ValueError("not yet")


@rota.task(retry_delay=hopeless)
def fail_hopelessly() -> None:
    raise ValueError("oh no")


@rota.task(retry_delay=quickly, retry_on=OSError, never_retry_on=ConnectionError)
def fail_with(journal: str, name: str) -> None:
    note(journal, "start")
    raise {"os": OSError, "connection": ConnectionError, "value": ValueError}[name](name)


@rota.task(max_attempts=2)
async def wait_and_see(journal: str, snoozes: int) -> str:
    """Snoozes, then asks for a retry, then is happy."""
    note(journal, "start")
    seen = starts(journal)
    if seen <= snoozes:
        raise rota.Snooze(0.01)
    if rota.current_job().attempt == 1:
        raise rota.Retry(after=timedelta(milliseconds=10))
    return f"attempt {rota.current_job().attempt}"


@rota.task(max_concurrency=2)
async def limited(journal: str, seconds: float = 0.05) -> None:
    note(journal, "start")
    await asyncio.sleep(seconds)
    note(journal, "end")


@rota.task(max_concurrency=1)
async def single(journal: str, what: str = "") -> None:
    note(journal, f"start{what}")
    await asyncio.sleep(0.02)
    note(journal, f"end{what}")


@rota.task
async def together(journal: str, count: int) -> int:
    """Ends when so many of them have begun."""
    note(journal, "start")
    while starts(journal) < count:              # noqa: ASYNC110 - it is other processes that write it
        await asyncio.sleep(0.01)
    return count


@rota.task
def together_sync(journal: str, count: int) -> int:
    """Ends when so many of them have begun."""
    note(journal, "start")
    while starts(journal) < count:
        time.sleep(0.01)
    return count


@rota.task
def nap(journal: str) -> None:
    note(journal, "start")
    time.sleep(0.1)
    note(journal, "end")


@rota.task
async def wait_for(journal: str, flag: str) -> None:
    """Ends when there is such a file."""
    note(journal, "start")
    while not Path(flag).exists():              # noqa: ASYNC110, ASYNC240 - it is another process that makes it
        await asyncio.sleep(0.01)


@rota.task
def hold(journal: str, flag: str) -> None:
    """Ends when there is such a file."""
    note(journal, "start")
    while not Path(flag).exists():
        time.sleep(0.01)
    note(journal, "end")


@rota.task(max_per_key=1, key="customer")
async def per_customer(journal: str, customer: str, seconds: float = 0.05) -> None:
    note(journal, f"start-{customer}")
    await asyncio.sleep(seconds)
    note(journal, f"end-{customer}")


@rota.task(queue=serial, retry_delay=quickly, max_attempts=2)
def in_order(journal: str, number: int, flag: str = "") -> int:
    """Fails while there is no file `flag`, if one is named."""
    note(journal, f"start-{number}")
    if flag and not Path(flag).exists():
        raise RuntimeError(f"{number} is not ready")
    note(journal, f"end-{number}")
    return number


@rota.task(queue=narrow)
async def squeezed(journal: str) -> None:
    note(journal, "start")
    await asyncio.sleep(0.05)
    note(journal, "end")


@rota.task(timeout=0.5, max_attempts=1)
def slow(seconds: float, touches: int = 0) -> str:
    for _ in range(touches):
        time.sleep(seconds / touches)
        rota.touch()
    if not touches:
        time.sleep(seconds)
    return "done"


@rota.task(timeout=0.5, max_attempts=1)
async def aslow(seconds: float, touches: int = 0) -> str:
    for _ in range(touches):
        await asyncio.sleep(seconds / touches)
        rota.touch()
    if not touches:
        await asyncio.sleep(seconds)
    return "done"


@rota.task
async def stop_when_told(journal: str) -> bool:
    """Sees its cancellation, and ends in its own way."""
    note(journal, "start")
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        return rota.current_job().cancel_requested
    return False


@rota.task
def context() -> Any:
    job = rota.current_job()
    return {
        "id": job.id, "task": job.task, "queue": job.queue, "attempt": job.attempt, "enqueued_at": job.enqueued_at,
        "fencing_token": job.fencing_token, "cancel_requested": job.cancel_requested,
    }


@rota.task(level="none")
async def fleeting(value: int) -> int:
    return value + 1


@rota.task
async def plain(value: int) -> int:
    return value + 1


@rota.task
def echo(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


class Doubler(rota.Worker, queue="classes", retries=2):
    def perform(self, value: int) -> int:
        return 2 * value


@rota.task(on_orphan="fail")
def once_only(journal: str, seconds: float) -> None:
    note(journal, "start")
    time.sleep(seconds)


@rota.task(requeue_delay=2.0)
def patient(journal: str, seconds: float) -> None:
    note(journal, "start")
    if starts(journal) == 1:
        time.sleep(seconds)


@rota.task
def survivor(journal: str, seconds: float) -> None:
    """Would take long at first; when it runs again, it does not."""
    note(journal, "start")
    if starts(journal) == 1:
        time.sleep(seconds)
