"""The garbage collector of a process that holds many jobs, in few cycles: a node, a runner of `async def` jobs.

With its defaults it takes a quarter of a node's time in bulk, and half of such a runner's; a pass over everything holds
up the loop for a tenth of a second.
"""

from __future__ import annotations

import gc

MANY_OBJECTS = (10_000, 20, 20)


def look_rarely() -> None:
    gc.set_threshold(*MANY_OBJECTS)


def spare_imports() -> None:
    """What was imported until now stays, and need not be looked through again and again."""
    gc.collect()
    gc.freeze()
