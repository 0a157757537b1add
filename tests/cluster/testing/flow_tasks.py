"""What the tests of jobs that wait for jobs run."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import rota

events: list[Any] = []
gate = threading.Event()
broken: set[str] = set()


@rota.task(max_attempts=1)
def part(name: str) -> str:
    gate.wait(60)
    if name in broken:
        raise ValueError(f"{name} is broken")
    events.append(name)
    return name.upper()


@rota.task(max_attempts=1, keep_result=0)
def silent(name: str) -> str:
    gate.wait(60)
    if name in broken:
        raise ValueError(f"{name} is broken")
    events.append(name)
    return name


@rota.task
def combine(*parts: Any, **named: Any) -> list[Any]:
    events.append((parts, named))
    return [*parts, *named.values()]


@rota.task
async def acombine(parts: list[Any], more: dict[str, Any] | None = None) -> list[Any]:
    await asyncio.sleep(0)
    return [*parts, *(more or {}).values()]


@rota.task
def finish(word: str = "finished") -> str:
    events.append(word)
    return word


@rota.task
def add(number: int, one: int = 1) -> int:
    return number + one


@rota.task
def kinds(*values: Any) -> list[str]:
    found = [type(value).__name__ for value in values]
    events.append(found)
    return found


@rota.task
async def slow() -> None:
    await asyncio.sleep(60)


@rota.task(max_attempts=1)
def fragile(word: str) -> str:
    if "mended" not in events:
        raise ValueError("not yet")
    events.append(f"fragile {word}")
    return word


@rota.task
def grows(number: int) -> str:
    """Adds to its own flow: the rest of the work, and who gathers it."""
    flow = rota.current_flow()
    assert flow is not None and rota.current_job() is not None
    with flow.add():
        found = add.enqueue_many([(each,) for each in range(number)])
        combine.enqueue(found)
    return flow.id
