"""Tasks that say how far they are."""

from __future__ import annotations

import logging
import threading

import rota

log = logging.getLogger("progress_tasks")
go = threading.Event()


@rota.task(keep_log=100)
def work(count: int) -> int:
    for number in range(1, count + 1):
        rota.progress(number, count, f"row {number}")
        log.warning("did %d", number)
    go.wait(60)
    return count


@rota.task(max_attempts=1)
async def fail() -> None:
    raise ValueError("no")
