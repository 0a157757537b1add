"""How what may be `async def` is waited for in a runner of plain functions: on an event loop that stands still between
the steps, so that the job itself finds none that runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import Any, Protocol, TypeVar

from rota.client.calls.handle import JobHandle

T = TypeVar("T")

_MISSING = object()


class Waits(Protocol):
    """Wait for something. Async runners await it."""

    async def __call__(self, awaitable: Awaitable[T], /) -> T: ...


async def awaits(awaitable: Awaitable[T], /) -> T:
    """On the loop of the jobs."""
    return await awaitable


class Blocking:
    """One loop for all that a runner of plain functions waits for, made when first needed. Any thread may wait; one
    does at a time."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None
        self._lock = threading.RLock()

    async def __call__(self, awaitable: Awaitable[T], /) -> T:
        """Blocks: does not give way to any loop."""
        return self.wait(awaitable)

    def wait(self, awaitable: Awaitable[T]) -> T:
        context = copy_context()
        with self._lock:
            if self._runner is None:
                self._runner = asyncio.Runner()
            result = _run(self._runner, _finish(awaitable), context)
        _adopt(context)
        return result

    def close(self) -> None:
        with self._lock:
            if self._runner is not None:
                self._runner.close()
                self._runner = None


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that blocks where others wait: no loop is needed."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("a step that should have blocked wanted to wait")


def _run(runner: asyncio.Runner, coroutine: Coroutine[Any, Any, T], context: Context) -> T:
    """Also in a test that is a coroutine itself."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return runner.run(coroutine, context=context)
    with ThreadPoolExecutor(1) as another:
        return another.submit(lambda: runner.run(coroutine, context=context)).result()


async def awaited(result: Any) -> Any:
    """What a job or a step returned in the end: a plain function may hand over a coroutine, a future, or several in a
    row."""
    while hasattr(type(result), "__await__") and not isinstance(result, JobHandle):     # which is none to wait for
        result = await result
    return result


async def _finish(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _adopt(context: Context) -> None:
    """What was set there holds here, too: a middleware may set the tenant."""
    for variable, value in context.items():
        if variable.get(_MISSING) is not value:
            variable.set(value)
