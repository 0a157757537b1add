"""Waiting out an outage: reads that the caller cannot do without, and tasks whose errors end nobody but themselves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rota.client.errors import LedgerError, LedgerUnavailable, StoreBusy, StoreRewound, WriteUnknown

log = logging.getLogger(__name__)

T = TypeVar("T")

PAUSE_S = 0.3
AGAIN_S_MIN, AGAIN_S_MAX = 1.0, 30.0


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer. Only for what is harmless to repeat."""
    while True:
        try:
            return await ask()
        except (LedgerUnavailable, StoreBusy, WriteUnknown):
            await asyncio.sleep(PAUSE_S)


async def steadily(what: str, work: Callable[[], Awaitable[None]], *passing: type[Exception]) -> None:
    """A side task, which must not end whom it serves: whatever goes wrong in it is logged, and it begins anew, ever
    later. Only `passing` is raised, and that the store went back in time, which voids everything."""
    passing = (StoreRewound, *passing)
    pause_s = AGAIN_S_MIN
    while True:
        try:
            return await work()
        except Exception as error:
            if isinstance(error, passing) or (isinstance(error, ExceptionGroup) and error.subgroup(passing)):
                raise
            known = isinstance(error, LedgerError)
            log.error("%s failed and begins anew in %g s: %s", what, pause_s, error, exc_info=None if known else error)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, AGAIN_S_MAX)
