"""Tasks that are kept, retried and stopped as somebody asks."""

from __future__ import annotations

import time
from pathlib import Path

import rota

from .work import note


@rota.task(keep_finished=60)
async def kept(value: int) -> int:
    return value + 1


@rota.task
async def plain(value: int) -> int:
    return value + 1


@rota.task(keep_finished=60, max_attempts=1)
async def odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError(f"{number} is even")
    return number


@rota.task(backoff_base=3600)
def patient(journal: str, good: int) -> int:
    """Fails before attempt number `good`."""
    note(journal, "start")
    attempt = rota.current_job().attempt
    if attempt < good:
        raise ValueError(f"attempt {attempt}")
    return attempt


@rota.task
def tidy(journal: str) -> str:
    note(journal, "start")
    while not rota.current_job().cancel_requested:
        time.sleep(0.02)
    return "tidied up"


@rota.task
def polite(journal: str) -> None:
    note(journal, "start")
    while True:
        time.sleep(0.02)
        rota.check_cancelled()


@rota.task(cancel_grace=0.3)
def deaf(journal: str) -> None:
    Path(journal).touch()
    time.sleep(600)
