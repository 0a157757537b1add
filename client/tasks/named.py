"""A task of which this process knows only the name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..calls import default
from ..calls.handle import JobHandle, JobHandles
from ..calls.order import Call, Route, Routed
from ..errors import InvalidJob
from ..ids import is_task_name, normal
from ..options import checks as options


class NamedTask(Routed):
    """A task of which this process knows only the name. How it runs, a node tells. Raises `InvalidJob`."""

    def __init__(self, name: str, *, queue: str = "default") -> None:
        given, name = name, normal(name)
        if not is_task_name(name) or "<" in name:
            raise InvalidJob(f"{given!r:.80} is not a valid task name; one looks like mypackage.tasks:resize")
        super().__init__(name, Route(name, options.queue_name(queue), None))

    def enqueue(self, /, *args: Any, **kwargs: Any) -> JobHandle[Any]:
        """Enqueue one job through the default client; returns when it is stored."""
        return default.client().place(self.order(args, kwargs))

    async def aenqueue(self, /, *args: Any, **kwargs: Any) -> JobHandle[Any]:
        """`enqueue` for coroutines."""
        return await default.client().aplace(self.order(args, kwargs))

    def enqueue_many(self, calls: Iterable[Call | tuple[Any, ...]]) -> JobHandles[Any]:
        """Enqueue many jobs at once: tuples of arguments, or what `call` gives."""
        return default.client().place_many(self, calls)

    async def aenqueue_many(self, calls: Iterable[Call | tuple[Any, ...]]) -> JobHandles[Any]:
        """`enqueue_many` for coroutines."""
        return await default.client().aplace_many(self, calls)

    def call(self, /, *args: Any, **kwargs: Any) -> Call:
        """Arguments for `enqueue_many`."""
        return Call(args, kwargs)
