"""The jobs of the benchmarks. Nodes import this module; so it imports nothing heavy."""

from __future__ import annotations

import asyncio
import os
import time
from itertools import count

import rota

ARGUMENT_BYTES = 200
IDLE_PAUSE_S = 0.01
"""Between two jobs on an idle cluster, and between the paced puts of the floor beside it."""

COMPUTE_ROUNDS = 50_000
"""Some milliseconds of a core."""

QUEUE, BACKLOG = "bench", "backlog"


def argument(number: int) -> dict[str, object]:
    """A dict that is 200 bytes as pickled arguments of a call."""
    return {"number": number, "text": _TEXT, "flag": True}


_TEXT = "x" * 146


@rota.task(queue=QUEUE)
async def noop(value: dict[str, object]) -> None:
    pass


@rota.task(queue=QUEUE)
def plain_noop(value: dict[str, object]) -> None:
    pass


@rota.task(queue=QUEUE)
def nap(journal: str, seconds: float) -> None:
    """A plain function that writes down when it starts."""
    note(journal)
    time.sleep(seconds)


@rota.task(queue=QUEUE)
async def anap(journal: str, seconds: float) -> None:
    note(journal)
    await asyncio.sleep(seconds)


@rota.task(queue=QUEUE)
async def value(number: int) -> int:
    return number


@rota.task(queue=QUEUE)
async def gather(numbers: list[int]) -> int:
    return sum(numbers)


@rota.task(queue=QUEUE)
async def steps(number: int) -> None:
    """So many durable steps, one after the other."""
    for step in range(number):
        await rota.step(f"step {step}", value.function, step)


@rota.task(queue=QUEUE)
def plain_steps(number: int) -> None:
    for step in range(number):
        rota.step(f"step {step}", int, step)


RATE = 1_000


@rota.task(queue="rated", rate=f"{RATE}/second")
async def rated(journal: str) -> None:
    """Writes down when it begins: one line, in one write."""
    _add(journal, f"{time.monotonic():.6f}\n")


@rota.task(queue="unrated")
async def unrated(journal: str) -> None:
    _add(journal, f"{time.monotonic():.6f}\n")


@rota.task(queue=QUEUE)
async def tick(journal: str, schedule: int) -> None:
    _add(journal, f"{schedule} {time.time():.6f}\n")


@rota.task(queue=QUEUE)
async def first_line(sent: float) -> float:
    """How long ago (monotonic) it was enqueued: what the rivals' latencies are."""
    return time.monotonic() - sent


@rota.task(queue=QUEUE)
async def compute(rounds: int) -> int:
    """A coroutine that never waits."""
    total = 0
    for number in range(rounds):
        total += number * number
    return total


_starts = count(1)


@rota.task(queue=QUEUE)
async def timed(seconds: float = 0.0, due: float = 0.0) -> tuple[int, int, float, float, float]:
    """Sleeps, and tells its process, which start in that process it was, when (monotonic) it began and ended, and how
    long after `due` (wall clock) that was."""
    number, late_s, began = next(_starts), time.time() - due, time.monotonic()
    if seconds:
        await asyncio.sleep(seconds)
    return os.getpid(), number, began, time.monotonic(), late_s


def note(journal: str) -> None:
    job = rota.current_job()
    assert job is not None
    _add(journal, f"{job.id} {os.getpid()} {time.clock_gettime(time.CLOCK_BOOTTIME):.6f}\n")


def _add(journal: str, line: str) -> None:
    descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
