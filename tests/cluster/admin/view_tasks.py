"""Tasks whose jobs are looked at by `test_views.py`."""

from __future__ import annotations

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
    gate.wait(20)
    return text
