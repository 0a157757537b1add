"""Jobs that say how far they are."""

from __future__ import annotations

import asyncio
import logging
import time

import rota

log = logging.getLogger("app.deep")


@rota.task(keep_log=3)
def plain(count: int) -> int:
    for number in range(count):
        rota.progress(number + 1, count, f"at {number}")
        log.info("line %d\nof %s", number, "many")
    log.debug("not shown")
    return count


@rota.task
async def coroutine(count: int) -> int:
    for number in range(count):
        rota.progress(number + 1)
        log.warning("nobody keeps this")
    await asyncio.sleep(0)
    return count


@rota.task
def slow(seconds: float) -> None:
    rota.progress(1, 3)
    rota.progress(2, 3, "the last word")
    time.sleep(seconds)


@rota.task(max_attempts=1)
def wrong(value: float) -> None:
    rota.progress(value)
