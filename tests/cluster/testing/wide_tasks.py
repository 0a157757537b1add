"""A task for many jobs of one call."""

from __future__ import annotations

import rota

BAD: set[int] = set()


@rota.task(max_attempts=1)
async def same(number: int) -> int:
    if number in BAD:
        raise ValueError(number)
    return number
