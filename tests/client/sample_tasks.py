"""Tasks for the tests of the client: importable by name."""

from __future__ import annotations

import rota


@rota.task
def add(a: int, b: int = 0) -> int:
    return a + b


@rota.task(queue="images", priority=5, max_attempts=3)
async def shout(text: str, *, marks: int = 1) -> str:
    return text.upper() + "!" * marks


@rota.task
def fail(message: str) -> None:
    raise ValueError(message)


@rota.task
def echo(*args: object, **kwargs: object) -> object:
    return args, kwargs
