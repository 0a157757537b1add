"""Tasks whose starts and ends can be read afterwards: one line each, appended to a journal."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import time
from typing import Any

import rota


def note(journal: str, what: str) -> None:
    job = rota.current_job()
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    line = f"{what} {job.id} {job.attempt} {job.fencing_token} {os.getpid()} {now:.6f}\n"
    descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


@rota.task
def nap(journal: str, seconds: float = 0.0) -> int:
    note(journal, "start")
    time.sleep(seconds)
    note(journal, "end")
    return os.getpid()


@rota.task
async def anap(journal: str, seconds: float = 0.0) -> int:
    note(journal, "start")
    await asyncio.sleep(seconds)
    note(journal, "end")
    return os.getpid()


@rota.task
def part(journal: str, number: int, seconds: float) -> int:
    time.sleep(seconds)
    note(journal, "end")
    return number


@rota.task
def total(journal: str, numbers: list[int]) -> list[int]:
    note(journal, "start")
    return numbers


@rota.task
def echo(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


@rota.task
async def aecho(value: Any) -> Any:
    return value


@rota.task(max_attempts=1)
def boom(text: str) -> None:
    raise ValueError(text)


@rota.task(max_attempts=1)
def die(how: str) -> None:
    if how == "exit":
        os._exit(3)
    if how == "segfault":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)


@rota.task
def kill_my_guard() -> None:
    """A poison job: it takes its node down, guard and all."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(30)


@rota.task
def parent(count: int) -> list[str]:
    return [aecho.enqueue(number).id for number in range(count)]


@rota.task
async def aparent(count: int) -> list[str]:
    handles = [await aecho.aenqueue(number) for number in range(count)]
    return [handle.id for handle in handles]


@rota.task
def unpicklable() -> Any:
    return (number for number in range(3))


class Awkward(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("awkward")


@rota.task(max_attempts=1)
def raise_awkward() -> None:
    raise Awkward(1, 2)


@rota.task
def large(size: int) -> bytes:
    return b"x" * size


@rota.task
def hoard(mib: int, seconds: float) -> int:
    """Its runner has so much in memory for a while."""
    held = b"x" * (mib * 2**20)
    time.sleep(seconds)
    return os.getpid() if held else 0


@rota.task
def who() -> tuple[int, int]:
    return os.getpid(), os.getuid()


@rota.task
async def awho(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()


@rota.task
def steps(go: str, count: int) -> int:
    """Says how far it is; its last step waits for a file."""
    for number in range(1, count + 1):
        while number == count and not os.path.exists(go):       # noqa: PTH110
            time.sleep(0.02)
        rota.progress(number, count)
        logging.getLogger("app").warning("step %d", number)
        time.sleep(0.05)
    return count
