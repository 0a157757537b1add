"""Workers as classes, for those who come from libraries where they are: a thin layer over `@task`.

    class Welcome(rota.Worker, queue="emails", retries=5):
        def perform(self, address: str) -> None: ...

    Welcome.perform_async("ann@example.org")
    Welcome.perform_in(10, "ann@example.org")       # in ten minutes
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar

from ..calls.handle import JobHandle
from ..errors import ConfigError
from ..options.checks import attempts
from .task import Task
from .task import task as declare


class Worker:
    """Derive from it and write `perform`, plain or `async def`. Each job is performed by an instance of its own, made
    without arguments. Class options are those of `@task`; `retries=n` says max_attempts=n + 1. `Welcome.task` is the
    task itself, for everything else: `Welcome.task.using(priority=5).enqueue(...)`.
    """

    task: ClassVar[Task[..., Any]]
    perform: Callable[..., Any]

    def __init_subclass__(cls, *, abstract: bool = False, retries: int | None = None, **options: Any) -> None:
        super().__init_subclass__()
        if abstract:
            return
        if not callable(getattr(cls, "perform", None)):
            raise ConfigError(f"{cls.__qualname__} has no perform(); say abstract=True if it is only derived from")
        if retries is not None:
            if "max_attempts" in options:
                raise ConfigError(f"{cls.__qualname__}: retries and max_attempts say the same thing")
            options["max_attempts"] = attempts(retries + 1)
        options.setdefault("name", f"{cls.__module__}:{cls.__qualname__}")
        cls.task = declare(**options)(_function(cls))

    @classmethod
    def perform_async(cls, *args: Any, **kwargs: Any) -> JobHandle[Any]:
        """Enqueue a job, to be run as soon as possible."""
        return cls.task.enqueue(*args, **kwargs)

    @classmethod
    def perform_in(cls, delay: float | timedelta, /, *args: Any, **kwargs: Any) -> JobHandle[Any]:
        """Enqueue a job, to be run after so many **minutes** (or after a timedelta, which says its unit itself)."""
        run_after = delay if isinstance(delay, timedelta) else timedelta(minutes=delay)
        return cls.task.using(run_after=run_after).enqueue(*args, **kwargs)


def _function(cls: type[Worker]) -> Callable[..., Any]:
    """What runs one job, with the signature of `perform` less `self`."""
    perform = cls.perform

    async def run_async(*args: Any, **kwargs: Any) -> Any:
        return await cls().perform(*args, **kwargs)

    def run_sync(*args: Any, **kwargs: Any) -> Any:
        return cls().perform(*args, **kwargs)

    run: Any = run_async if inspect.iscoroutinefunction(perform) else run_sync
    functools.update_wrapper(run, perform)
    del run.__wrapped__
    signature = inspect.signature(perform)
    run.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])
    run.perform = perform           # whose module its annotations are of
    run.__module__, run.__qualname__ = cls.__module__, f"{cls.__qualname__}.task"
    function: Callable[..., Any] = run
    return function
