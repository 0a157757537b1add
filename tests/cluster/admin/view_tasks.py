"""Tasks whose jobs are looked at by `test_views.py`."""

from __future__ import annotations

import asyncio
import threading

import rota

blocked = rota.Queue("blocked", serial=True)
gate = threading.Event()


@rota.task(queue=blocked, max_attempts=1)
def careful(number: int, well: bool = True) -> int:
    if not well:
        raise ValueError(f"number {number} is not well")
    return number


@rota.task(max_attempts=1)
def hold(text: str) -> str:
    gate.wait(60)
    return text


@rota.task(max_attempts=3, backoff_base=3600)
def third(text: str) -> str:
    if rota.current_job().attempt < 3:
        raise ValueError(f"attempt {rota.current_job().attempt}")
    return text


@rota.task(level="none", max_attempts=2, backoff_base=0.01)
def light(text: str) -> str:
    raise ValueError(text)


@rota.task(level="none")
async def light_hold() -> None:
    await asyncio.sleep(600)


@rota.task(keep_finished=60)
def kept(text: str) -> str:
    return text
