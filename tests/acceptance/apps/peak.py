"""A job that is worth nothing but its result."""

from __future__ import annotations

import rota


@rota.task
async def same(number: int) -> int:
    return number
