"""A cancellation that a failing task group would swallow.

Where a task is cancelled while a `TaskGroup` that it waits for is failing, the group's errors win until Python 3.13
(nor can `Task.cancelling` be trusted then): a loop that catches them and tries again would never end. So such loops let
the group run in a task of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def apart(work: Coroutine[Any, Any, T], name: str) -> T:
    """Run something that holds a task group, in a task of its own. Raises what it raises; but if the caller is
    cancelled, that, once the work has ended."""
    task = asyncio.create_task(work, name=name)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()        # looked at: what failed in the end does not matter any more
        raise
    return task.result()
