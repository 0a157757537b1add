"""Middleware round the run: what is entered before each job and left after it, and what is put into its parameters.

    @rota.around_job
    @contextmanager
    def tenant(job: rota.JobContext) -> Iterator[None]:
        token = current.set(job.headers.get("tenant"))
        try:
            yield
        finally:
            current.reset(token)

A job of a task that nothing is round pays one comparison.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol, TypeVar, overload

from rota.client.calls.handle import JobHandle
from rota.client.calls.models import Adapter, validated
from rota.client.errors import ConfigError, InvalidJob, RotaError
from rota.client.model import Codec
from rota.client.tasks.dependencies import Dependency, injected_of

from .context import JobContext, current_job
from .resources import Here, Resources, Stack
from .waiting import Waits, at_once, awaits

Step = Callable[[JobContext], Any]
StepT = TypeVar("StepT", bound=Step)

steps: list[tuple[int, Step]] = []
"""The outermost first."""


class Unfit(RotaError):
    """The arguments are not what the task takes: another attempt would not help."""


class Described(Protocol):
    """What is asked of a `rota.client.tasks.task.Task`."""

    models: dict[str, Adapter]
    signature: inspect.Signature


@overload
def around_job(step: StepT, /) -> StepT: ...
@overload
def around_job(*, order: int = 0) -> Callable[[StepT], StepT]: ...
def around_job(step: Any = None, /, *, order: int = 0) -> Any:
    """Put something round each run of each job in the runners that import this module. A decorator, bare or with
    `order`.

    The function gets the job (`rota.JobContext`) and gives a context manager, sync or async; or it is a generator,
    plain or `async def`, that yields once; or a function, plain or `async def`, that returns None and is over before
    the job begins. What it raises is the job's failure. A context manager sees the job's exception; one that swallows
    it makes the job end well, with None. Those with a smaller `order` are further out, those with equal ones as they
    were declared. What an `async def` one sets in context variables is set for the job, also for a plain function.

    Raises:
        ConfigError: it cannot be called.
    """
    if step is None:
        return lambda step: around_job_at(step, order)
    return around_job_at(step, order)


def around_job_at(step: StepT, order: int) -> StepT:
    if not callable(step):
        raise ConfigError(f"{step!r:.80}: around_job takes a function of one argument, the job that is about to run")
    entered: Any = step
    if inspect.isasyncgenfunction(step):
        entered = asynccontextmanager(step)
    elif inspect.isgeneratorfunction(step):
        entered = contextmanager(step)
    steps.append((order, entered))
    steps.sort(key=lambda entry: entry[0])
    return step


class Around:
    """Of one task. `on_loop` and `blocking` call its function, as the two kinds of runners do."""

    def __init__(
        self, task: str, function: Callable[..., Any], injected: Mapping[str, Dependency], described: Described | None
    ) -> None:
        self._task = task
        self._function = function
        self._injected = injected
        self._described = described if described is not None and described.models else None

    def __bool__(self) -> bool:
        return bool(steps or self._injected or self._described)

    def on_loop(self, args: tuple[Any, ...], kwargs: dict[str, Any], codec: Codec) -> Coroutine[Any, Any, Any]:
        """On the event loop of the jobs."""
        return self._call(args, kwargs, codec, awaits, Here.on_loop)

    def blocking(self, args: tuple[Any, ...], kwargs: dict[str, Any], codec: Codec) -> Any:
        """Without a loop that runs."""
        return at_once(self._call(args, kwargs, codec, Here.waits, Here.blocking))

    async def _call(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], codec: Codec, waits: Waits, resources: Resources
    ) -> Any:
        if self._described is not None:
            try:
                args, kwargs = validated(
                    self._task, self._described.models, self._described.signature, args, kwargs, codec
                )
            except InvalidJob as error:
                raise Unfit(str(error)) from None
        stack = Stack(waits)
        result: Any = None
        raised: BaseException | None = None
        try:
            await self._enter(stack, waits)
            found = await self._inject(stack, waits, resources)
            result = self._function(*args, **kwargs, **found)
            while hasattr(type(result), "__await__") and not isinstance(result, JobHandle):
                result = await waits(result)
        except BaseException as error:      # also CancelledError: what was entered is left
            raised, result = error, None
        left = await stack.leave(raised)
        if left is not None:
            raise left
        return result

    async def _enter(self, stack: Stack, waits: Waits) -> None:
        job = current_job()
        assert job is not None
        for _, step in steps:
            given = step(job)
            if inspect.isawaitable(given):
                given = await waits(given)
            if hasattr(type(given), "__aenter__") or hasattr(type(given), "__enter__"):
                await stack.enter(given)
            elif given is not None:
                raise Unfit(
                    f"the middleware {getattr(step, '__qualname__', step)!s:.80} gave a {type(given).__name__}: "
                    "around_job takes what gives a context manager, or None"
                )

    async def _inject(self, stack: Stack, waits: Waits, resources: Resources) -> dict[str, Any]:
        made: dict[Any, Any] = {}
        if not self._injected:
            return made
        if waits is awaits:
            return {name: await resources.of(one, made, stack) for name, one in self._injected.items()}
        with Here.lock:
            return {name: await resources.of(one, made, stack) for name, one in self._injected.items()}


def around_of(task: str, function: Callable[..., Any], described: Any) -> Around | None:
    """None where nothing is round its jobs. Asked when the app has been imported."""
    around = Around(task, function, injected_of(function), described)
    return around if around else None
