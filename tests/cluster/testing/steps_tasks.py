"""What the tests of steps and batches run."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import rota

events: list[str] = []
gate = threading.Event()


def did(what: str, value: Any = None) -> Any:
    events.append(what)
    return value


async def adid(what: str, value: Any = None) -> Any:
    return did(what, value)


@rota.task(backoff_base=1, backoff_cap=1)
def order(number: int, fail_at: int = 0) -> int:
    paid = rota.step("charge", did, "charge", number + 1)
    if rota.current_job().attempt <= fail_at:       # type: ignore[union-attr]
        raise OSError("not yet")
    return int(rota.step("ship", did, "ship", paid * 10))


@rota.task(backoff_base=1, backoff_cap=1)
async def aorder(number: int, fail_at: int = 0) -> int:
    paid = await rota.step("charge", adid, "charge", number + 1)
    if rota.current_job().attempt <= fail_at:       # type: ignore[union-attr]
        raise OSError("not yet")
    return int(await rota.step("ship", adid, "ship", paid * 10))


@rota.task(max_attempts=1)
def fails(number: int) -> int:
    paid = rota.step("charge", did, "charge", number)
    if not gate.is_set():
        raise OSError("the gate is closed")
    return int(paid)


@rota.task(max_attempts=1)
def sleeper(seconds: float) -> int:
    events.append("run")
    rota.step("before", did, "before")
    rota.sleep(seconds)
    rota.sleep(seconds=seconds)
    return int(rota.step("after", did, "after", rota.current_job().attempt))    # type: ignore[union-attr]


@rota.task(max_attempts=1)
async def asleeper(seconds: float) -> int:
    events.append("run")
    await rota.step("before", adid, "before")
    await rota.sleep(seconds)
    await rota.sleep(seconds=seconds)
    return int(await rota.step("after", adid, "after", rota.current_job().attempt))     # type: ignore[union-attr]


serial = rota.Queue("steps-serial", serial=True)


@rota.task(queue=serial, max_attempts=1)
def in_order(number: int, seconds: float = 0.0) -> int:
    if seconds:
        rota.sleep(seconds)
    return int(did(f"{number}", number))


@rota.task(queue=serial, max_attempts=1)
def waits_in_order(number: int) -> int:
    return child.enqueue(number).result()


@rota.task(max_attempts=1)
def child(number: int) -> int:
    if number < 0:
        raise ValueError("negative")
    return int(did(f"child {number}", number * 10))


@rota.task(max_attempts=1)
def parent(*numbers: int) -> list[int]:
    handles = rota.step("children", child.enqueue_many, [(number,) for number in numbers])
    first = rota.step("first", child.enqueue, 7)
    return [first.result(), *handles.results()]


@rota.task(max_attempts=1)
async def aparent(number: int) -> int:
    async with asyncio.TaskGroup() as group:
        one = group.create_task(_awaited("one", number))
        two = group.create_task(_awaited("two", number + 1))
    return one.result() + two.result()


async def _awaited(name: str, number: int) -> int:
    handle = await rota.step(name, child.aenqueue, number)
    return await handle


@rota.task(max_attempts=1)
def impatient(seconds: float, timeout: float) -> tuple[list[int], str]:
    """It waits for jobs, for so long at first."""
    handles = rota.step("start", lambda: sleeper.enqueue_many([(seconds,), (0.0,)]))
    try:
        return handles.results(timeout), "in time"
    except TimeoutError as error:
        did(str(error))
    return handles.results(), "late"


@rota.task(max_attempts=1)
async def aimpatient(seconds: float, timeout: float) -> tuple[list[int], str]:
    handle = await rota.step("start", asleeper.aenqueue, seconds)
    try:
        return [await handle.aresult(timeout), 1], "in time"
    except TimeoutError as error:
        did(str(error))
    return [await handle, 1], "late"


@rota.task(max_attempts=1)
async def abreast(seconds: float) -> str:
    """Goes to sleep while another coroutine of it is in the midst of a step."""
    async with asyncio.TaskGroup() as group:
        step = group.create_task(rota.step("slow", _slowly))
        await rota.sleep(seconds)
    return step.result()


async def _slowly() -> str:
    did("began")
    await asyncio.sleep(0.1)
    return str(did("ended", "slow"))


@rota.task(max_attempts=1)
def misuse(how: str) -> Any:
    match how:
        case "twice":
            rota.step("a", did, "a")
            return rota.step("a", did, "a")
        case "no name":
            return rota.step("", did, "a")
        case "line":
            return rota.step("a\nb", did, "a")
        case "lock":
            return rota.step("lock", threading.Lock)
        case "large":
            return rota.step("large", bytes, 300_000)
        case "async":
            return rota.step("async", adid, "a")
        case "sleep inside":
            return rota.step("outer", rota.sleep, 1)
        case "wait inside":
            return rota.step("outer", lambda: child.enqueue(1).result())
        case "timeout":
            return child.enqueue(1).result(timeout=-1)
        case "past":
            return rota.sleep(-1)
        case "all":
            for number in range(9):
                rota.step(f"a {number}", bytes, 130_000)
        case "itself":
            return rota.handle(rota.current_job().id).result()      # type: ignore[union-attr]
    return None


@rota.task(timeout=4, max_attempts=1)
def slow_but_asleep() -> str:
    rota.sleep(5)
    return "rested"


@rota.task(max_attempts=1)
async def cancelled_in_step() -> None:
    await rota.step("first", adid, "first")
    gate.set()
    await rota.step("second", asyncio.sleep, 60)


# -- batches ---------------------------------------------------------------------------------------------------------

sizes: list[int] = []


@rota.task(batch=10, batch_wait=0.3, backoff_base=1, backoff_cap=1)
def index(pages: list[int]) -> list[int | Exception]:
    """An odd one fails at first, a negative one for ever."""
    sizes.append(len(pages))
    return [
        OSError("busy") if page % 2 and len(sizes) == 1 else rota.Snooze(1) if page == 100 and len(sizes) < 3
        else ValueError("negative") if page < 0 else page * 2
        for page in pages
    ]


@rota.task(batch=10, batch_wait=0.3, max_attempts=1)
async def aindex(pages: list[int]) -> list[int | Exception]:
    sizes.append(len(pages))
    await asyncio.sleep(0)
    return [ValueError("negative") if page < 0 else page * 2 for page in pages]


@rota.task(batch=3, batch_wait=0.05, max_attempts=1)
def wrong(pages: list[str]) -> Any:
    match pages[0]:
        case "raise":
            raise OSError("down")
        case "few":
            return [1]
        case "text":
            return "abc"
        case "none":
            return None
    return pages


@rota.task(batch=5, batch_wait=0.2, unique=True)
def once(pages: list[int]) -> list[int]:
    sizes.append(len(pages))
    return pages


@rota.task(batch=5, batch_wait=0.2, max_per_key=1, key=lambda page: page % 2)
def keyed(pages: list[int]) -> list[int]:
    sizes.append(len(pages))
    time.sleep(0.01)
    return pages


@rota.task(batch=3, batch_wait=0.2, timeout=0.5, cancel_grace=0.2, max_attempts=1)
async def stuck(seconds: list[float]) -> list[float]:
    await asyncio.sleep(max(seconds))
    return seconds


@rota.task(batch=2, batch_wait=60, max_attempts=1)
async def held(pages: list[int]) -> list[int]:
    """Until it may go on."""
    sizes.append(len(pages))
    await asyncio.to_thread(gate.wait, 60)
    return pages
