"""When a duty that goes by the wall clock looks again."""

from __future__ import annotations

import asyncio

from ...clock import Clock

LOOK_S_MAX = 5.0
"""Looked at least this often, whatever the watch says (and so the wall clock may be set back or forth)."""


async def until_due(clock: Clock, due_ms: int | None, earlier: asyncio.Event) -> None:
    """Wait until a moment (ms since 1970; None: there is none), or until something earlier is seen."""
    wait_s = LOOK_S_MAX if due_ms is None else min(due_ms / 1000 - clock.wall(), LOOK_S_MAX)
    if wait_s <= 0:
        return
    try:
        async with asyncio.timeout(wait_s):
            await earlier.wait()
    except TimeoutError:
        pass
