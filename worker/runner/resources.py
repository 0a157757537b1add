"""What `rota.Depends` stands for: made when first needed, kept for the runner or for one job, taken down in reverse."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from rota.client.tasks.dependencies import Dependency

from .waiting import Blocking, Waits, at_once, awaits

log = logging.getLogger("rota.job")

_NOTHING = object()


class Stack:
    """Context managers, sync and async, that were entered; left in reverse."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._entered: list[Any] = []

    async def enter(self, manager: Any) -> Any:
        """What it gives."""
        if hasattr(type(manager), "__aenter__"):
            value = await self._waits(manager.__aenter__())
        else:
            value = manager.__enter__()
        self._entered.append(manager)
        return value

    async def leave(self, error: BaseException | None) -> BaseException | None:
        """All of them. Returns the exception that is left: one may swallow it, or raise another."""
        while self._entered:
            manager = self._entered.pop()
            facts = (None, None, None) if error is None else (type(error), error, error.__traceback__)
            try:
                if hasattr(type(manager), "__aexit__"):
                    swallowed = await self._waits(manager.__aexit__(*facts))
                else:
                    swallowed = manager.__exit__(*facts)
            except BaseException as another:
                error = another
            else:
                if swallowed:
                    error = None
        return error


class Resources:
    """Of one runner. `waits` says how what is `async def` is waited for."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._stack = Stack(waits)
        self._made: dict[Any, Any] = {}
        self._locks: dict[Any, asyncio.Lock] = {}

    async def of(self, dependency: Dependency, made: dict[Any, Any], stack: Stack) -> Any:
        """The resource. `made` and `stack` are those of the job that wants it."""
        if dependency.scope == "job":
            if dependency.factory not in made:
                made[dependency.factory] = await self._make(dependency, made, stack, stack)
            return made[dependency.factory]
        value = self._made.get(dependency.factory, _NOTHING)
        if value is not _NOTHING:
            return value
        if self._waits is not awaits:
            return await self._make_once(dependency, made, stack)
        async with self._locks.setdefault(dependency.factory, asyncio.Lock()):
            return await self._make_once(dependency, made, stack)

    async def _make_once(self, dependency: Dependency, made: dict[Any, Any], stack: Stack) -> Any:
        value = self._made.get(dependency.factory, _NOTHING)        # another job was faster
        if value is _NOTHING:
            value = self._made[dependency.factory] = await self._make(dependency, made, stack, self._stack)
        return value

    async def _make(self, dependency: Dependency, made: dict[Any, Any], of_job: Stack, stack: Stack) -> Any:
        needs = {name: await self.of(need, made, of_job) for name, need in dependency.needs.items()}
        factory: Any = dependency.factory
        try:
            if inspect.isasyncgenfunction(factory):
                return await stack.enter(asynccontextmanager(factory)(**needs))
            if inspect.isgeneratorfunction(factory):
                return await stack.enter(contextmanager(factory)(**needs))
            value = factory(**needs)
            return await self._waits(value) if inspect.isawaitable(value) else value
        except Exception as error:
            error.add_note(f"raised while a runner made rota.Depends({dependency.name})")
            raise

    async def close(self) -> None:
        self._made.clear()
        error = await self._stack.leave(None)
        if error is not None:
            log.error("a resource could not be taken down: %r", error)


class Here:
    """This process's own: a runner has one event loop, or one main thread."""

    on_loop = Resources(awaits)
    waits = Blocking()
    blocking = Resources(waits)
    lock = threading.RLock()
    """Among the threads of a test; a runner of plain functions has one that makes things."""


async def close() -> None:
    """The runner of `async def` jobs ends."""
    await Here.on_loop.close()
    Here.on_loop = Resources(awaits)


def close_blocking() -> None:
    """The runner of plain functions ends."""
    with Here.lock:
        at_once(Here.blocking.close())
        Here.waits.close()
