"""A call on its way: where it goes (`Route`, made by a `Routed`) and what it carries (`Order`).

Jobs with equal routes may share a bundle; the coalescer keys on nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, Self

import msgspec

from ..errors import InvalidJob, JobTooLarge
from ..model import BUNDLE_BYTES_MAX, NO_OPTIONS, NO_TERMS, Codec, Level, Mode, OnConflict, OnUpstream, Options, Terms
from ..options import backoff
from ..options import checks as options
from ..options import headers as texts
from ..options.marks import Mark
from ..options.terms import EXPIRES_S_MIN, GivenTerms
from ..upstream import After, joined, refs_of, upstream_of
from ..wire import offload, sealing
from . import outgoing, pickling
from .handle import JobHandle

EMPTY: dict[str, Any] = {}


class Route(NamedTuple):
    """`mode` is None for a task that is known by name only: a node tells. `function` is the digest of shipped code."""

    task: str
    queue: str
    mode: Mode | None
    priority: int = 0
    delay_s: float = 0.0
    options: Options = NO_OPTIONS
    function: str = ""
    level: Level = "durable"
    key: str = ""
    retry_s: float | None = None        # how patient its client is; None: as the client says
    connect_s: float | None = None
    terms: Terms | None = None
    idempotency: str = ""               # what names its bundle; "": nothing does
    bundle: str = ""                    # its name, where an object has been given it already

    @property
    def alone(self) -> bool:
        """Whether a job with this route is in a bundle of its own: something is said of it alone."""
        return bool(self.idempotency or self.bundle) or (self.terms is not None and bool(self.terms.unique))

    @property
    def by_key(self) -> bool:
        """Whether its jobs take turns, or are counted, by a key; or are those of a flow."""
        terms = self.terms
        return bool(self.key) or (
            terms is not None and (bool(terms.fair_key or terms.rate_key) or terms.flow is not None)
        )


class Order(NamedTuple):
    """One job to enqueue. `code` is what `route.function` is the digest of."""

    route: Route
    payload: bytes
    codec: Codec
    code: bytes = b""


class Call(NamedTuple):
    """Arguments for one job, for `enqueue_many`; made by `task.call(...)`, which type checkers compare with the task's
    signature."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = EMPTY


class Routed:
    """Something that can be enqueued: a name and where its jobs go."""

    def __init__(self, name: str, route: Route) -> None:
        self.name = name
        self.route = route
        self.run_at: datetime | None = None
        self.expires_at: datetime | None = None
        self.headers: Mapping[str, str] = texts.NONE
        self.keyed = False
        """Whether each job has a key that depends on its arguments."""
        self.is_unique = False
        """Whether what each job has for itself depends on its arguments."""
        self.marks: tuple[Mark, ...] = ()
        """Other keys that each job has by its arguments."""

    def using(
        self,
        *,
        queue: str | None = None,
        priority: int | None = None,
        run_after: timedelta | datetime | float | None = None,
        timeout: float | timedelta | None = None,
        max_attempts: int | None = None,
        backoff_base: float | timedelta | None = None,
        backoff_cap: float | timedelta | None = None,
        retry_delay: backoff.Delay | None = None,
        keep_result: float | timedelta | None = None,
        keep_finished: float | timedelta | None = None,
        level: Level | None = None,
        key: str | int | None = None,
        headers: Mapping[str, str] | None = None,
        keep_log: int | None = None,
        retry_window: float | timedelta | None = None,
        connect_timeout: float | timedelta | None = None,
        unique_key: str | int | None = None,
        unique_until: Literal["ended", "begun"] | None = None,
        unique_for: float | timedelta | None = None,
        on_conflict: OnConflict | None = None,
        expires: timedelta | datetime | float | None = None,
        idempotency_key: str | None = None,
        idempotency_window: float | timedelta | None = None,
        after: After | None = None,
        on_upstream: OnUpstream | None = None,
        requires: Collection[str] | None = None,
        weight: int | None = None,
        fair_key: str | int | None = None,
        rate_key: str | int | None = None,
    ) -> Self:
        """The same with other options for the jobs enqueued through it; what is not given stays as it is.

        `run_after` is how long to wait (seconds, or a timedelta) or when to run at the earliest (a datetime with a time
        zone). All durations are seconds or timedeltas. `retry_delay` is asked here, once for each attempt that may
        fail, and its answers travel with the jobs: so any function will do. `level` is "durable", "delayed" or "none",
        `key` what the task's `max_per_key` counts by. `headers` are texts that travel with the job, beside those
        said before. `keep_log` is how many lines of its log are kept. `retry_window` and `connect_timeout` say how long
        the enqueue itself may take, as those of the client.

        `unique_key`, `unique_until`, `unique_for` and `on_conflict` are as `task` explains them; with a `unique_key`
        there is one unended job of the task with that key. `expires` is how long from now, or until when, the job may
        begin; else it ends as expired. `idempotency_key` (1 to 256 characters) names the job in the whole cluster: an
        enqueue with the same key within `idempotency_window` (at least two minutes) is the same enqueue, and returns a
        handle of the same job, ended or not; with other arguments it is refused.

        `after` names jobs (a handle or an id, or several) that have to end well before these begin; so do those whose
        handles are among the arguments. `on_upstream` says what is done when one of them does not: "block" (the job
        waits until a person has retried that one, or cancels this), "cancel", or "run" (it runs all the same; in the
        place of a result that there is not stands the exception that `result()` would raise).

        `requires` are labels that a node must have to run these jobs, beside those that their task requires. `weight`
        is how many slots of its node each takes. `fair_key` says whose they are: those of each key take turns in their
        queue. `rate_key` is what the task's `rate_per_key` counts them by, where that is not their `key`.

        Raises `InvalidJob`.
        """
        changed = object.__new__(type(self))
        vars(changed).update(vars(self))
        route = self.route
        if queue is not None:
            route = route._replace(queue=options.queue_name(queue))
        if priority is not None:
            route = route._replace(priority=options.priority(priority))
        if run_after is not None:
            delay_s, changed.run_at = options.delay(run_after)
            route = route._replace(delay_s=delay_s)
        if level is not None:
            route = route._replace(level=options.level(level))
        if key is not None:
            route, changed.keyed = route._replace(key=options.key(key)), False
        if headers is not None:
            changed.headers = texts.checked({**self.headers, **texts.checked(headers)})
        if retry_window is not None:
            route = route._replace(retry_s=options.window_s(retry_window, "retry_window", zero=False))
        if connect_timeout is not None:
            route = route._replace(connect_s=options.window_s(connect_timeout, "connect_timeout"))
        asked = GivenTerms(
            unique_key, unique_until, unique_for, on_conflict, expires, idempotency_key, idempotency_window,
            on_upstream, requires, weight, fair_key, rate_key,
        )
        if fair_key is not None or rate_key is not None:
            given_here = {"fair_key": fair_key, "rate_key": rate_key}
            changed.marks = tuple(mark for mark in self.marks if given_here[mark.name] is None)
        if asked.anything:
            if unique_key is not None:
                changed.is_unique = False
            if expires is not None:
                changed.expires_at = expires if isinstance(expires, datetime) else None
            route = route._replace(
                terms=asked.over(route.terms or NO_TERMS), idempotency=idempotency_key or route.idempotency
            )
        if after is not None:
            terms = route.terms or NO_TERMS
            route = route._replace(terms=msgspec.structs.replace(terms, after=upstream_of(refs_of(after), ())))
        given: dict[str, Any] = {}
        if max_attempts is not None:
            given["max_attempts"] = options.attempts(max_attempts)
        if timeout is not None:
            given["timeout_s"] = options.duration_s(timeout, "timeout", zero=False)
        if keep_log is not None:
            given["keep_log"] = options.log_lines(keep_log)
        for name, value in (
            ("keep_result", keep_result), ("keep_finished", keep_finished), ("backoff_base", backoff_base),
            ("backoff_cap", backoff_cap),
        ):
            if value is not None:
                given[f"{name}_s"] = options.duration_s(value, name)
        if "backoff_base_s" in given or "backoff_cap_s" in given:
            given["retry_delays_s"] = ()
        if retry_delay is not None:
            given |= self._retry_delays(retry_delay, given)
        changed.route = route._replace(options=msgspec.structs.replace(route.options, **given))
        return changed

    def _retry_delays(self, delay: backoff.Delay, given: Mapping[str, Any]) -> dict[str, Any]:
        """A schedule brings its own number of attempts, unless one was said."""
        if "backoff_base_s" in given or "backoff_cap_s" in given:
            raise InvalidJob("retry_delay says how long to wait, and so do backoff_base and backoff_cap: give one")
        if not callable(delay):
            raise InvalidJob(f"retry_delay {delay!r:.80} is not valid: a function from the attempt's number to seconds")
        attempts = given.get("max_attempts")
        if attempts is None and isinstance(delay, backoff.Schedule):
            attempts = delay.max_attempts
        if attempts is None:
            return {"retry_delays_s": backoff.table(delay, self.route.options.max_attempts or self.attempts)}
        return {"retry_delays_s": backoff.table(delay, attempts), "max_attempts": attempts}

    @property
    def attempts(self) -> int:
        """How many its task allows; of a task that is known by name only, as many as a job can say delays for."""
        return backoff.TABLE_MAX + 1

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise `InvalidJob` for arguments that the function does not take, as far as that is known here."""

    @property
    def is_bare(self) -> bool:
        """Whether its jobs are enqueued as they are called: no headers, nobody who wants to see them before."""
        return not (outgoing.steps or self.headers)

    def dress(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], route: Route
    ) -> tuple[tuple[Any, ...], Mapping[str, Any], Mapping[str, str], Route]:
        """Arguments, headers and route as middleware wants them. Raises `InvalidJob`, or what refuses the job."""
        if not outgoing.steps:
            return args, kwargs, self.headers, route
        job = outgoing.seen_by_all(
            outgoing.Outgoing(self.name, args, dict(kwargs), dict(self.headers), route.queue, route.priority)
        )
        self.check(job.args, job.kwargs)
        return job.args, job.kwargs, job.headers, route._replace(queue=job.queue, priority=job.priority)

    def key_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """The key of one job. Asked for only if `keyed`."""
        return self.route.key

    def destination(self) -> tuple[Route, bytes]:
        """The route as of now, and the code to ship if it goes by value."""
        route = self.route
        if self.run_at is not None:
            route = route._replace(delay_s=options.seconds_until(self.run_at))
        if self.expires_at is not None:
            left_s = max(options.seconds_until(self.expires_at), EXPIRES_S_MIN)
            route = route._replace(terms=msgspec.structs.replace(route.terms or NO_TERMS, expires_s=left_s))
        return route, b""

    def unique_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """What one job has for itself; "": nothing. Asked for only if `is_unique`."""
        return self.route.terms.unique if self.route.terms is not None else ""

    def order(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Order:
        """One call, checked and serialized. Raises `InvalidJob`, `NotSerializable`, `JobTooLarge`."""
        self.check(args, kwargs)
        route, code = self.destination()
        headers = self.headers
        if not self.is_bare:
            args, kwargs, headers, route = self.dress(args, kwargs, route)
        if self.keyed:
            route = route._replace(key=self.key_of(args, kwargs))
        if self.is_unique:
            route = self.with_unique(route, args, kwargs)
        if self.marks:
            route = self.with_marks(route, args, kwargs)
        met: list[JobHandle[Any]] = []
        payload, payload_codec = pickling.dump_arguments(args, kwargs, "" if code else self.name, headers, met)
        if met:
            route = with_upstream(route, met)
        if sealing.active:
            payload = sealing.sealed(payload, sealing.ARGUMENTS)
        if len(payload) > BUNDLE_BYTES_MAX:
            route, payload = offloaded(route, payload)
        return Order(route, payload, payload_codec, code)

    def with_unique(self, route: Route, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Route:
        unique = self.unique_of(args, kwargs)
        return route._replace(terms=msgspec.structs.replace(route.terms or NO_TERMS, unique=unique))

    def with_marks(self, route: Route, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Route:
        """The route of one job, with its other keys. Raises `InvalidJob`."""
        given = {mark.name: mark.of(args, kwargs) for mark in self.marks}
        return route._replace(terms=msgspec.structs.replace(route.terms or NO_TERMS, **given))

    def __repr__(self) -> str:
        return f"<task {self.name}>"


def with_upstream(route: Route, met: list[JobHandle[Any]]) -> Route:
    """The route of a job that handles are arguments of. Raises `InvalidJob`."""
    terms = route.terms or NO_TERMS
    return route._replace(terms=msgspec.structs.replace(terms, after=joined(terms.after, met)))


def offloaded(route: Route, payload: bytes) -> tuple[Route, bytes]:
    """A payload that is too large goes to the object store, if there is one. Raises `JobTooLarge`,
    `OffloadUnavailable`."""
    if not offload.active or route.idempotency or route.level != "durable":
        raise JobTooLarge(len(payload), BUNDLE_BYTES_MAX)
    bundle = offload.names.next()
    return route._replace(bundle=bundle), offload.stored(payload, bundle, 0, "arguments")
