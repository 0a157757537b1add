"""Tasks: functions that were declared runnable, with their options.

    @rota.task(queue="images")
    def resize(path: str, width: int) -> str: ...

    handle = resize.enqueue("a.jpg", width=300)      # a wrong argument is a type error, and refused here at run time
    resize("a.jpg", width=300)                       # calls the function

A task that a node can import travels by name, `module:qualname`. What it cannot import (a lambda, a closure, a function
of a script or a REPL) is shipped by value.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import update_wrapper
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeAlias, TypeVar, cast, overload

import msgspec

from ..calls import default, pickling
from ..calls.handle import JobHandle, JobHandles
from ..calls.models import Adapter, models_of, validated
from ..calls.order import Call, Route, Routed
from ..calls.signature import parameters_of
from ..errors import ConfigError, InvalidJob, JobTooLarge
from ..ids import normal
from ..model import NO_OPTIONS, Level, OnConflict, OnOrphan, Options, TaskInfo
from ..options.backoff import BASE_S, CAP_S, Delay, table
from ..options.checks import key as key_text
from ..options.marks import KeyBy
from ..options.retries import Decision
from ..options.timetable import CatchUp, Overlap
from ..options.uniqueness import UniqueBy
from ..wire import codec
from .batches import one_of
from .declaration import Declaration, ExceptionKinds, signature_of
from .dependencies import Dependency, injected_of
from .named import NamedTask
from .naming import advice, describe, mode_of, origin_of

P = ParamSpec("P")
R = TypeVar("R")
P2 = ParamSpec("P2")
R2 = TypeVar("R2")

FUNCTION_BYTES_MAX = 1024 * 1024
"""Of code shipped by value: etcd takes 1.5 MiB in one request."""

_SHAPES_MAX = 256


class Task(Routed, Generic[P, R]):
    """A function that can be enqueued. Made by `@task`; `using()` gives a copy with other options."""

    def __init__(self, function: Callable[P, Any], declared: Declaration) -> None:
        self.origin = origin = origin_of(function)
        if declared.batch is not None:
            function = one_of(function)
        self.by_value = declared.by_value or not origin.is_importable(named=bool(declared.name))
        if not (declared.name or origin.qualname or self.by_value):
            raise ConfigError(
                f"{describe(function)} has no name of its own, as a function has, and a task needs one that is the "
                f'same in every process: rota.task(name="{origin.module}:…")'
            )
        self.info = declared.info(function, f"{origin.module or '__main__'}:{origin.qualname or _label(function)}")
        self.retries = declared.retries()
        self.function: Callable[P, Any] = function
        self._signature: inspect.Signature | None = None     # read when first needed
        self._shapes: set[tuple[object, ...]] = set()
        super().__init__(self.info.name, declared.route(self.info)._replace(options=self._shipped_options()))
        self._key = declared.key
        self.keyed = declared.key is not None
        declared.check_limits(self.info, function)
        self._uniqueness = declared.uniqueness(self.info, function)
        self.marks = declared.marks(self.info, function)
        self.is_unique = self._uniqueness is not None
        self.injected: dict[str, Dependency] = injected_of(function)
        self._models: dict[str, Adapter] | None = None      # read when first needed: annotations name what comes later
        update_wrapper(cast(Any, self), function, updated=())

    def replaces(self, before: Task[..., Any]) -> bool:
        """Whether this is the declaration `before` once more: its module was loaded again, or nothing has changed."""
        if self.origin.is_reload_of(before.origin):
            return True
        same = (self.function, self.info, self.route) == (before.function, before.info, before.route)
        return same and (self.retries, self._key, self._uniqueness, self.marks) == (
            before.retries, before._key, before._uniqueness, before.marks
        )

    def key_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """What the limit per key counts this call by; "" is counted by nothing."""
        key = self._key
        if callable(key):
            return key_text(key(*args, **kwargs))
        bound = signature_of(self.function).bind(*args, **kwargs)
        bound.apply_defaults()
        return key_text(bound.arguments[str(key)])

    def unique_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        assert self._uniqueness is not None
        return self._uniqueness.key(args, kwargs)

    def _shipped_options(self) -> Options:
        """Code by value arrives without its task: what the runner and the node need of the task goes along."""
        if not self.by_value:
            return NO_OPTIONS
        info, delay = self.info, self.retries.delay
        return Options(
            max_attempts=info.max_attempts, timeout_s=info.timeout_s, keep_result_s=info.keep_result_s,
            keep_finished_s=info.keep_finished_s, keep_log=info.keep_log or None,
            backoff_base_s=None if info.backoff_base_s == BASE_S else info.backoff_base_s,
            backoff_cap_s=None if info.backoff_cap_s == CAP_S else info.backoff_cap_s,
            retry_delays_s=() if delay is None else table(delay, info.max_attempts),
        )

    @property
    def attempts(self) -> int:
        return self.info.max_attempts

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Enqueue one job through the default client; returns when it is stored."""
        return default.client().place(self.order(args, kwargs))

    async def aenqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Enqueue one job through the default client, from a coroutine."""
        return await default.client().aplace(self.order(args, kwargs))

    def enqueue_many(self, calls: Iterable[Call | tuple[Any, ...]]) -> JobHandles[R]:
        """Enqueue many jobs at once: `task.enqueue_many([task.call(1), task.call(2)])`, or tuples of arguments."""
        return default.client().place_many(self, calls)

    async def aenqueue_many(self, calls: Iterable[Call | tuple[Any, ...]]) -> JobHandles[R]:
        """`enqueue_many` for coroutines."""
        return await default.client().aplace_many(self, calls)

    def call(self, /, *args: P.args, **kwargs: P.kwargs) -> Call:
        """Arguments for `enqueue_many`."""
        return Call(args, kwargs)

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Only the number of arguments and their names matter, so each shape is compared with the signature once."""
        shape = (len(args), *kwargs)
        if shape in self._shapes:
            return
        injected = self.injected.keys() & kwargs.keys()
        if injected:
            raise InvalidJob(f"{self.name}: {', '.join(sorted(injected))} is injected by the runner (rota.Depends)")
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidJob(f"{self.name}{self.signature}: {error}") from None
        if len(self._shapes) < _SHAPES_MAX:
            self._shapes.add(shape)

    @property
    def signature(self) -> inspect.Signature:
        """What callers give."""
        if self._signature is None:
            self._signature = signature_of(self.function)
        return self._signature

    @property
    def models(self) -> dict[str, Adapter]:
        """The parameters that are pydantic models, and what checks them."""
        if self._models is None:
            self._models = models_of(self.function, self.signature)
        return self._models

    @property
    def is_bare(self) -> bool:
        return super().is_bare and not self.models

    def dress(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], route: Route
    ) -> tuple[tuple[Any, ...], Mapping[str, Any], Mapping[str, str], Route]:
        args, kwargs, headers, route = super().dress(args, kwargs, route)
        if self.models:
            args, kwargs = validated(self.name, self.models, self.signature, args, kwargs)
        return args, kwargs, headers, route

    @property
    def described(self) -> TaskInfo:
        """What a node is told of it: its parameters, too."""
        return msgspec.structs.replace(self.info, parameters=parameters_of(signature_of(self.function)))

    def destination(self) -> tuple[Route, bytes]:
        """Code is dumped anew at each enqueue: what it closes over may have changed."""
        route, _ = super().destination()
        if not self.by_value:
            return route, b""
        self._check_by_value()
        code = pickling.dump_function(self.function, advice(self.origin) if self.origin.module else "")
        if len(code) > FUNCTION_BYTES_MAX:
            raise JobTooLarge(len(code), FUNCTION_BYTES_MAX, f"the code of {self.name} and what it closes over")
        return route._replace(function=codec.function_digest(code)), code

    def _check_by_value(self) -> None:
        """What stays behind when the code alone travels must not be lost in silence."""
        info = self.info
        plain = TaskInfo(
            info.name, info.mode, info.queue, info.max_attempts, info.backoff_base_s, info.backoff_cap_s,
            info.timeout_s, info.keep_result_s, info.keep_finished_s, keep_log=info.keep_log,
        )
        if info != plain or self.marks or not self.retries.plain:
            raise InvalidJob(
                f"{info.name} cannot be imported by the nodes and travels as code: limits, rates, labels, weight, "
                "keys, batch, on_orphan, requeue_delay, cancel_grace, retry_on and never_retry_on cannot go along. "
                + advice(self.origin)
            )

    def retry_decision(self, error: BaseException, attempt: int, options: Options = NO_OPTIONS) -> Decision:
        """What becomes of a job after its attempt number `attempt` (from 1) raised `error`."""
        return self.retries.decide(self.info, error, attempt, options)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """By name, where its module declares it under that name; else by value."""
        known = registry.get(self.name) if not self.by_value else None
        if known is self:
            return _find, (self.origin.module, self.name)
        if known is not None and known.function is self.function:
            mine = {name: value for name, value in vars(self).items() if name not in ("_signature", "_models")}
            changed = {name: value for name, value in mine.items() if vars(known).get(name) is not value}
            return _find_and_change, (self.origin.module, self.name, changed)
        return super().__reduce_ex__(protocol)

    def __getstate__(self) -> dict[str, Any]:
        made_again: dict[str, Any] = {"_signature": None, "_models": None, "_shapes": set()}
        return vars(self) | made_again | {"origin": self.origin._replace(runs=())}


class SyncTask(Task[P, R]):
    """A task whose function is a plain `def`: it has a runner process to itself while it runs, and can be killed."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = self.function(*args, **kwargs)
        return result


class AsyncTask(Task[P, R]):
    """A task whose function is an `async def`: it shares an event loop with others."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        coroutine: Coroutine[Any, Any, R] = self.function(*args, **kwargs)
        return coroutine


Item = TypeVar("Item")


class BatchDecorator(Protocol):
    """What `@task(batch=…)` gives: of a function of a list, the task of its elements. A job's result is what its place
    in the returned list says, unless that is an exception."""

    @overload
    def __call__(
        self, function: Callable[[list[Item]], Coroutine[Any, Any, Sequence[R2 | Exception]]], /
    ) -> AsyncTask[[Item], R2]: ...
    @overload
    def __call__(self, function: Callable[[list[Item]], Sequence[R2 | Exception]], /) -> SyncTask[[Item], R2]: ...


registry: dict[str, Task[..., Any]] = {}
"""All tasks that this process has declared and that a node can import by name."""


class TaskDecorator(Protocol):
    """What `@task(...)` with options gives. (An `async def` fits both signatures; the first wins, as is meant.)"""

    @overload
    def __call__(self, function: Callable[P2, Coroutine[Any, Any, R2]], /) -> AsyncTask[P2, R2]: ...    # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P2, R2], /) -> SyncTask[P2, R2]: ...


@overload
def task(function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
@overload
def task(function: Callable[P, R], /) -> SyncTask[P, R]: ...
@overload
def task(
    *,
    batch: int,
    batch_wait: float | timedelta = 0.1,
    name: str | None = None,
    queue: str = "default",
    priority: int = 0,
    max_attempts: int | None = None,
    backoff_base: float | timedelta = BASE_S,
    backoff_cap: float | timedelta = CAP_S,
    retry_delay: Delay | None = None,
    retry_on: ExceptionKinds | None = None,
    never_retry_on: ExceptionKinds = (),
    timeout: float | timedelta | None = None,
    keep_result: float | timedelta = 3600.0,
    keep_finished: float | timedelta | None = None,
    keep_log: int = 0,
    cancel_grace: float | timedelta = 2.0,
    max_concurrency: int | None = None,
    max_per_key: int | None = None,
    key: str | Callable[..., str | int | None] | None = None,
    level: Level = "durable",
    on_orphan: OnOrphan = "requeue",
    requeue_delay: float | timedelta = 0.0,
    cron: str | None = None,
    tz: str | None = None,
    every: timedelta | float | None = None,
    jitter: float | timedelta = 0.0,
    catch_up: CatchUp = "latest",
    overlap: Overlap = "allow",
    unique: UniqueBy = False,
    unique_until: Literal["ended", "begun"] = "ended",
    unique_for: float | timedelta | None = None,
    on_conflict: OnConflict = "existing",
    expires: float | timedelta | None = None,
    rate: str | None = None,
    rate_per_key: str | None = None,
    requires: Collection[str] = (),
    weight: int = 1,
    fair_key: KeyBy | None = None,
    rate_key: KeyBy | None = None,
) -> BatchDecorator: ...
@overload
def task(
    *,
    name: str | None = None,
    queue: str = "default",
    priority: int = 0,
    max_attempts: int | None = None,
    backoff_base: float | timedelta = BASE_S,
    backoff_cap: float | timedelta = CAP_S,
    retry_delay: Delay | None = None,
    retry_on: ExceptionKinds | None = None,
    never_retry_on: ExceptionKinds = (),
    timeout: float | timedelta | None = None,
    keep_result: float | timedelta = 3600.0,
    keep_finished: float | timedelta | None = None,
    keep_log: int = 0,
    cancel_grace: float | timedelta = 2.0,
    max_concurrency: int | None = None,
    max_per_key: int | None = None,
    key: str | Callable[..., str | int | None] | None = None,
    level: Level = "durable",
    on_orphan: OnOrphan = "requeue",
    requeue_delay: float | timedelta = 0.0,
    cron: str | None = None,
    tz: str | None = None,
    every: timedelta | float | None = None,
    jitter: float | timedelta = 0.0,
    catch_up: CatchUp = "latest",
    overlap: Overlap = "allow",
    unique: UniqueBy = False,
    unique_until: Literal["ended", "begun"] = "ended",
    unique_for: float | timedelta | None = None,
    on_conflict: OnConflict = "existing",
    expires: float | timedelta | None = None,
    rate: str | None = None,
    rate_per_key: str | None = None,
    requires: Collection[str] = (),
    weight: int = 1,
    fair_key: KeyBy | None = None,
    rate_key: KeyBy | None = None,
) -> TaskDecorator: ...
def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Declare a function as a task, bare or with options.

    Args:
        name: what the cluster calls it; `module:qualname` if not given. Give one to move the code without losing jobs.
        queue: where its jobs go.
        priority: -100 to 100, higher first within a queue.
        max_attempts: how often a job is tried in all; 5 if neither this nor a schedule of `rota.backoff` says. 1: once.
        backoff_base, backoff_cap: the wait after the first failure, doubled after each further one up to the cap;
            between half of it and all of it is waited, at random.
        retry_delay: a function from the number of the attempt that failed (from 1) to seconds, instead of those two;
            `rota.backoff` has some.
        retry_on: exceptions that are worth another attempt; None: all. never_retry_on: those that are not.
        timeout: how long one attempt may take. The job can restart the clock with `rota.touch()`.
        keep_result: how long results are kept.
        keep_finished: how long a job that ended well is kept, arguments included (`rota finished`); as its node's
            setting of that name says if not given, and that is: not at all.
        keep_log: how many lines of a job's log (what it says through `logging`) are kept with it for a day, the last
            ones, at most 1,000 and 32 KiB: `handle.log()`.
        cancel_grace: how long a job that is cancelled while it runs may go on, before its runner is killed. An
            `async def` job gets `CancelledError`, a plain function can ask `rota.current_job().cancel_requested`.
        max_concurrency: how many of its jobs may run at a time in the whole cluster; None: any number.
        max_per_key, key: how many with the same key; the key is the argument of that name, or what a function of the
            arguments gives. One at a time is no order: a job that is retried goes behind the others; a serial queue
            keeps the order.
        level: "durable": stored before the enqueue returns; "delayed": begun at once, stored meanwhile; "none": kept
            in the memory of the node that takes it, and nowhere else.
        on_orphan: what becomes of a job that may have been running when its node was lost: "requeue" runs it again,
            "fail" puts it into the failed set.
        requeue_delay: how long such a job waits before it is queued again.
        cron, tz: the schedule of a task that takes no arguments: five fields, "0 3 * * 1-5", in that time zone (UTC).
        every: a schedule, too: an interval of at least a second.
        jitter, catch_up, overlap: of its schedule; as `client.schedules.put` explains them.
        unique: of jobs that are alike there is one that has not ended: alike in all arguments (True), in the one of
            this name or those of these names, or in what a function of the arguments gives (None: not unique).
        unique_until: "ended", "begun": until when a job keeps others like it away. A job that is in the failed set, was
            cancelled or deleted has ended.
        unique_for: instead of that, for this long from its enqueue, whatever becomes of it.
        on_conflict: what an enqueue does that finds such a job: "existing" returns its handle (`handle.existing`),
            "raise" raises `JobExists`, "replace" puts the new job, with its arguments and delay, in the place of one
            that has not begun (whoever waits for that gets `JobCancelled`), and else does as "existing".
        requires: labels that a node must have to run it, as in `requires={"gpu"}` and `rota node --labels gpu`.
        rate, rate_per_key: how many of its jobs, or of those with the same key, may begin in a time, in the cluster:
            "100/minute", "5/10s", "1000/hour, burst 50" (so many at once after a pause; else what
            comes in a tenth of a second, and 1 at least).
        rate_key: what `rate_per_key` counts by, where that is not `key`: the name of an argument, or a function of the
            arguments.
        weight: how many slots of its node one of its jobs takes; one that takes more than any node has waits, and says
            so.
        fair_key: whose a job is: the name of an argument, or a function of the arguments. In a queue those of each key
            take turns, so that who has enqueued much does not keep the others waiting.
        expires: how long after its enqueue a job may begin. One that has not begun by then, for the first time or
            again, ends as expired: whoever waits gets `JobExpired`.
        batch, batch_wait: the function takes one list, gets up to so many jobs at once (each was enqueued with one
            argument, an element of the list) and returns a list with a result, or an exception, for each. The first of
            them waits at most that long for more. They share a runner of `async def` jobs; a plain function runs on a
            thread of it. (docs/batches.md)
        All durations are seconds or timedeltas.

    Raises:
        ConfigError: a second function claims the same name; what has no name of its own (a partial, an instance, a
            bound method) is given none; a generator; or two options contradict each other.
        InvalidJob: an option is out of range.
    """
    if function is not None:
        return _declare(function, options)
    return lambda function: _declare(function, options)


def _declare(function: Callable[..., Any], options: dict[str, Any]) -> Task[..., Any]:
    if isinstance(function, Task):
        raise ConfigError(f"{function.name} is a task already; for jobs with other options there is task.using(...)")
    made = make_task(function, **options)
    if made.by_value:
        return made
    before = registry.get(made.name)
    if before is not None and not made.replaces(before):
        places = " and ".join(task.origin.module + "." + (task.origin.qualname or "…") for task in (before, made))
        raise ConfigError(
            f"two tasks are called {made.name}: {places}. A name stands for one function: give one of them another, "
            "@rota.task(name=...). For jobs of one task with other options there is task.using(...)"
        )
    registry[made.name] = made
    return made


def make_task(function: Callable[..., Any], **options: Any) -> Task[..., Any]:
    """A task that is not registered."""
    if isinstance(function, staticmethod):
        function = function.__func__
    kind = AsyncTask if mode_of(function) == "async" else SyncTask
    return kind(function, Declaration(**options))


Target: TypeAlias = Routed | str | Callable[..., Any]


def as_task(target: Target) -> Routed:
    """What `client.enqueue` was given: a task, a name, or a plain function, which is shipped by value."""
    if isinstance(target, Routed):
        return target
    if isinstance(target, str):
        return registry.get(normal(target)) or NamedTask(target)
    if not callable(target):
        raise InvalidJob(f"{target!r:.80} cannot be enqueued: a task, a task's name or a function can")
    try:
        return make_task(target, by_value=True)
    except ConfigError as error:
        raise InvalidJob(str(error)) from None


def _label(function: object) -> str:
    """What to call what has no name, and travels as code."""
    return f"<{type(function).__name__}>"


def _find(module: str, name: str) -> Task[..., Any]:
    """Unpickle a task that travelled by name."""
    if name not in registry:
        importlib.import_module(module)
    return registry[name]


def _find_and_change(module: str, name: str, changed: dict[str, Any]) -> Task[..., Any]:
    """The same, of one that was made with `using()`."""
    known = _find(module, name)
    copy = object.__new__(type(known))
    vars(copy).update(vars(known) | changed)
    return copy


_find.__module__ = _find_and_change.__module__ = "rota.client.tasks"
"""Stored payloads name them so: the release before finds them there, too."""
