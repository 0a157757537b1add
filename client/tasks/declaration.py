"""What `@task(...)` is told, checked: the task's facts, its route, and its rules for retries."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any, Literal

import msgspec

from ..calls.order import Route
from ..errors import ConfigError
from ..ids import is_task_name, normal
from ..model import NO_TERMS, ON_ORPHANS, Level, OnConflict, OnOrphan, TaskInfo
from ..options import checks as options
from ..options import rates
from ..options.backoff import BASE_S, CAP_S, MAX_ATTEMPTS, Delay
from ..options.marks import KeyBy, Mark, mark
from ..options.retries import Retries, attempts_of, retries
from ..options.terms import GivenTerms
from ..options.timetable import CatchUp, Overlap, declared
from ..options.uniqueness import UniqueBy, Uniqueness
from .dependencies import without_injected
from .naming import mode_of

ExceptionKinds = type[BaseException] | tuple[type[BaseException], ...]


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a task, as its author wrote them (`task` explains each). `by_value`: its code is shipped."""

    name: str | None = None
    queue: str = "default"
    priority: int = 0
    max_attempts: int | None = None
    backoff_base: float | timedelta = BASE_S
    backoff_cap: float | timedelta = CAP_S
    retry_delay: Delay | None = None
    retry_on: ExceptionKinds | None = None
    never_retry_on: ExceptionKinds = ()
    timeout: float | timedelta | None = None
    keep_result: float | timedelta = 3600.0
    keep_finished: float | timedelta | None = None
    cancel_grace: float | timedelta = 2.0
    max_concurrency: int | None = None
    max_per_key: int | None = None
    key: str | Callable[..., str | int | None] | None = None
    level: Level = "durable"
    on_orphan: OnOrphan = "requeue"
    requeue_delay: float | timedelta = 0.0
    cron: str | None = None
    tz: str | None = None
    every: timedelta | float | None = None
    jitter: float | timedelta = 0.0
    catch_up: CatchUp = "latest"
    overlap: Overlap = "allow"
    unique: UniqueBy = False
    unique_until: Literal["ended", "begun"] = "ended"
    unique_for: float | timedelta | None = None
    on_conflict: OnConflict = "existing"
    expires: float | timedelta | None = None
    keep_log: int = 0
    rate: str | None = None
    rate_per_key: str | None = None
    requires: Collection[str] = ()
    weight: int = 1
    fair_key: KeyBy | None = None
    rate_key: KeyBy | None = None
    batch: int | None = None
    batch_wait: float | timedelta | None = None
    by_value: bool = False

    def info(self, function: Callable[..., Any], name: str) -> TaskInfo:
        """What nodes are told of it; `name` is its own if the author gave none. Raises `InvalidJob`, `ConfigError`."""
        info = TaskInfo(
            name=normal(self.name) if self.name else name,
            mode="async" if self.batch is not None else mode_of(function),     # a loop gathers its jobs
            queue=options.queue_name(self.queue),
            max_attempts=options.attempts(
                attempts_of(self.retry_delay, MAX_ATTEMPTS) if self.max_attempts is None else self.max_attempts
            ),
            backoff_base_s=options.duration_s(self.backoff_base, "backoff_base"),
            backoff_cap_s=options.duration_s(self.backoff_cap, "backoff_cap"),
            timeout_s=None if self.timeout is None else options.duration_s(self.timeout, "timeout", zero=False),
            keep_result_s=options.duration_s(self.keep_result, "keep_result"),
            keep_finished_s=(
                None if self.keep_finished is None else options.duration_s(self.keep_finished, "keep_finished")
            ),
            cancel_grace_s=options.duration_s(self.cancel_grace, "cancel_grace"),
            max_concurrency=options.limit(self.max_concurrency, "max_concurrency"),
            max_per_key=options.limit(self.max_per_key, "max_per_key"),
            keep_log=options.log_lines(self.keep_log),
            on_orphan=options.one_of(self.on_orphan, ON_ORPHANS, "on_orphan"),
            requeue_delay_s=options.duration_s(self.requeue_delay, "requeue_delay"),
            rate=rates.rate(self.rate, "rate"),
            rate_per_key=rates.rate(self.rate_per_key, "rate_per_key"),
            requires=options.labels(self.requires),
            weight=options.weight(self.weight),
            batch=0 if self.batch is None else options.batch(self.batch),
            batch_wait_s=options.batch_wait_s(self.batch, self.batch_wait),
            schedule=declared(
                self.cron, self.tz, self.every, self.jitter, self.catch_up, self.overlap,
                options.priority(self.priority),
            ),
        )
        if not is_task_name(info.name):
            raise ConfigError(
                f"{info.name!r:.80} is not a valid task name: letters, digits and _ . : @ - (at most 256)"
            )
        return info

    def route(self, info: TaskInfo) -> Route:
        """Where its jobs go."""
        given = GivenTerms(
            None, None if self.unique_until == "ended" else self.unique_until, self.unique_for,
            None if self.on_conflict == "existing" else self.on_conflict, self.expires,
        )
        return Route(
            info.name, info.queue, info.mode, options.priority(self.priority), level=options.level(self.level),
            terms=given.over(NO_TERMS) if given.anything else None,
        )

    def uniqueness(self, info: TaskInfo, function: Callable[..., Any]) -> Uniqueness | None:
        """How its jobs are unique, if they are. Raises `ConfigError`."""
        if self.unique is False:
            if self.unique_for is not None or (self.unique_until, self.on_conflict) != ("ended", "existing"):
                raise ConfigError(f"{info.name}: unique_until, unique_for and on_conflict go with unique=…")
            return None
        if self.level != "durable":
            raise ConfigError(f"{info.name}: a unique job is stored durably; level={self.level!r} is not")
        return Uniqueness(info.name, signature_of(function), self.unique)

    def marks(self, info: TaskInfo, function: Callable[..., Any]) -> tuple[Mark, ...]:
        """The other keys of its jobs. Raises `ConfigError`."""
        signature = signature_of(function)
        made: list[Mark] = []
        if self.fair_key is not None:
            made.append(mark(info.name, "fair_key", self.fair_key, signature))
        if self.rate_key is not None:
            made.append(mark(info.name, "rate_key", self.rate_key, signature))
        return tuple(made)

    def retries(self) -> Retries:
        """What is worth another attempt, beyond the numbers. Raises `InvalidJob`."""
        return retries(self.retry_delay, self.retry_on, self.never_retry_on)

    def check_limits(self, info: TaskInfo, function: Callable[..., Any]) -> None:
        """Raise `ConfigError` where options contradict each other, or the function."""
        key, signature = self.key, signature_of(function)
        if self.rate_key is not None and info.rate_per_key is None:
            raise ConfigError(f"{info.name}: rate_key goes with rate_per_key: how many in a time, counted by what")
        counted = info.max_per_key is not None or (info.rate_per_key is not None and self.rate_key is None)
        if counted != (key is not None):
            raise ConfigError(
                f"{info.name}: key goes with max_per_key or rate_per_key, and these with it: how many at a time, or in "
                "a time, and counted by what"
            )
        if isinstance(key, str) and key not in signature.parameters:
            raise ConfigError(f"{info.name}: key={key!r} is not the name of one of its arguments")
        if key is not None and not isinstance(key, str) and not callable(key):
            raise ConfigError(f"{info.name}: key is the name of an argument, or a function of the arguments")
        if info.schedule is not None and not _takes_nothing(function):
            raise ConfigError(
                f"{info.name} has a schedule, and arguments without defaults that nobody would give; with arguments: "
                "client.schedules.put(name, task, args=(...), cron=...)"
            )
        limits = (info.max_concurrency, info.max_per_key, info.rate, info.rate_per_key)
        if self.level != "durable" and any(limit is not None for limit in limits):
            raise ConfigError(f"{info.name}: a task with a limit is stored durably; level={self.level!r} is not")
        if self.level != "durable" and (info.weight > 1 or self.fair_key is not None):
            raise ConfigError(
                f"{info.name}: a task with a weight or a fair_key is stored durably; level={self.level!r} is not"
            )
        if self.level != "durable" and self.expires is not None:
            raise ConfigError(f"{info.name}: a task that expires is stored durably; level={self.level!r} is not")


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """What callers give: without what a runner injects. Raises `ConfigError`."""
    try:
        return without_injected(inspect.signature(function))
    except (TypeError, ValueError):     # some built-in functions have none: anything goes
        return inspect.signature(lambda *args, **kwargs: None)


def _takes_nothing(function: Callable[..., Any]) -> bool:
    try:
        signature_of(function).bind()
    except TypeError:
        return False
    return True
