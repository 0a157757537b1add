"""Tasks for the tests of `rota.testing`."""

from __future__ import annotations

import time

import rota

events: list[str] = []
line = rota.Queue("line", serial=True)


@rota.task
def add(a: int, b: int = 0) -> int:
    return a + b


@rota.task
async def shout(text: str) -> str:
    return text.upper()


@rota.task(max_attempts=3, backoff_base=3600)
def third_time(name: str) -> str:
    attempt = rota.current_job().attempt
    events.append(f"{name} {attempt}")
    if attempt < 3:
        raise ValueError(f"attempt {attempt}")
    return name


@rota.task
def sign_up(name: str) -> str:
    return welcome.using(run_after=3600).enqueue(name).id


@rota.task
async def welcome(name: str) -> None:
    events.append(f"welcome {name}")


@rota.task(max_attempts=1)
def broken() -> None:
    raise KeyError("nothing")


@rota.task(queue=line)
def step(number: int) -> None:
    events.append(f"step {number}")


@rota.task(max_per_key=1, key="who", backoff_base=0.01)
def in_turn(who: str, number: int) -> None:
    events.append(f"{who} {number}")
    if number == 0 and rota.current_job().attempt == 1:
        raise ValueError("not yet")


@rota.task(timeout=0.05, max_attempts=1)
def slow() -> None:
    time.sleep(0.5)


@rota.task(timeout=0.05, max_attempts=1)
async def aslow() -> None:
    import asyncio

    await asyncio.sleep(600)


@rota.task(cancel_grace=20)
async def tidies_up() -> str:
    import asyncio

    events.append("begins")
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        await asyncio.sleep(0.05)
        return "tidy"
    return "?"


@rota.task(max_attempts=4, backoff_base=60)
def soon_again(name: str) -> str:
    attempt = rota.current_job().attempt
    events.append(f"{name} {attempt}")
    if attempt < 4:
        raise ValueError(f"attempt {attempt}")
    return name


@rota.task(queue=line, max_attempts=3, backoff_base=60)
def stubborn(name: str, well_at: int = 3) -> str:
    attempt = rota.current_job().attempt
    events.append(f"{name} {attempt}")
    if attempt < well_at:
        raise ValueError(f"attempt {attempt}")
    return name
