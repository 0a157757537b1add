"""What the tests of offloading run."""

from __future__ import annotations

import rota


@rota.task
def size(data: bytes) -> int:
    return len(data)


@rota.task
async def make(count: int) -> bytes:
    return b"x" * count


@rota.task
def both(data: bytes) -> bytes:
    return data[::-1]
