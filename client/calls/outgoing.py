"""Middleware round the enqueue: functions that see each job before it is serialized, and may change or refuse it.

    @rota.before_enqueue
    def stamp(job: rota.Outgoing) -> None:
        job.headers["tenant"] = tenant.get()
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, overload

from ..errors import ConfigError, InvalidJob, RotaError
from ..options import headers as texts
from ..options.checks import priority as checked_priority
from ..options.checks import queue_name


class Outgoing:
    """A job that is about to be enqueued. What is assigned here is what will be stored: `args` (a tuple), `kwargs`,
    `headers`, `queue`, `priority`. `task` is its task's name, and stays."""

    __slots__ = ("args", "headers", "kwargs", "priority", "queue", "task")

    def __init__(
        self, task: str, args: tuple[Any, ...], kwargs: dict[str, Any], headers: dict[str, str], queue: str,
        priority: int,
    ) -> None:
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.headers = headers
        self.queue = queue
        self.priority = priority

    def __repr__(self) -> str:
        return f"<job of {self.task} on its way>"


Step = Callable[[Outgoing], None]
StepT = TypeVar("StepT", bound=Step)

steps: list[tuple[int, Step]] = []
"""In the order in which they are called."""


@overload
def before_enqueue(step: StepT, /) -> StepT: ...
@overload
def before_enqueue(*, order: int = 0) -> Callable[[StepT], StepT]: ...
def before_enqueue(step: Any = None, /, *, order: int = 0) -> Any:
    """Call a function with each job (`rota.Outgoing`) that this process enqueues, whichever way: before it is
    serialized, on the thread that enqueues. A decorator, bare or with `order`.

    It may change the job, add headers, or refuse it by raising: then nothing is stored, and whoever enqueues gets the
    exception. Functions with a smaller `order` are called first, those with equal ones as they were declared. It is not
    called for jobs that HTTP clients, other processes or schedules make.

    Raises:
        ConfigError: it is no plain function, for plain code enqueues, too.
    """
    if step is None:
        return lambda step: before_enqueue_at(step, order)
    return before_enqueue_at(step, order)


def before_enqueue_at(step: StepT, order: int) -> StepT:
    if not callable(step) or inspect.iscoroutinefunction(step) or inspect.isgeneratorfunction(step):
        raise ConfigError(f"{step!r:.80}: before_enqueue takes a plain function of one argument, the job on its way")
    steps.append((order, step))
    steps.sort(key=lambda entry: entry[0])
    return step


def seen_by_all(job: Outgoing) -> Outgoing:
    """What becomes of a job when all have seen it. Raises `InvalidJob`, or what refuses it."""
    for _, step in steps:
        try:
            step(job)
        except Exception as error:
            if not isinstance(error, RotaError):
                error.add_note(f"raised by {_name(step)}, before a job of {job.task} was enqueued: nothing is stored")
            raise
    if not isinstance(job.args, tuple) or not isinstance(job.kwargs, dict):
        raise InvalidJob(f"{job.task}: after before_enqueue, args is a {type(job.args).__name__} and kwargs a "
                         f"{type(job.kwargs).__name__}; a tuple and a dict are needed")
    job.queue, job.priority = queue_name(job.queue), checked_priority(job.priority)
    job.headers = dict(texts.checked(job.headers))
    return job


def _name(step: Step) -> str:
    return getattr(step, "__qualname__", repr(step))
