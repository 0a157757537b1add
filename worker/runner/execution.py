"""From bytes to a call, from a call to an outcome. The only place where arguments are unpickled: the node has checked
their signatures, and this is a process in which user code runs anyway."""

from __future__ import annotations

import hashlib
import logging
import pickle
import traceback
from collections.abc import Callable
from types import AsyncGeneratorType, GeneratorType, TracebackType
from typing import Any, Protocol

from msgspec.structs import replace

from rota.client.api.results import check_entry
from rota.client.calls.pickling import bare, dump_value, load_call, load_function, load_value
from rota.client.errors import JobTooLarge, KeyMissing, OffloadUnavailable, RotaError
from rota.client.model import BUNDLE_BYTES_MAX, EXPIRED, Codec, Options, Outcome, ResultEntry, TaskInfo
from rota.client.options.checks import now_s
from rota.client.options.retries import Decision, Retries, Snooze
from rota.client.upstream import MARK, MARK_BYTE, open_with
from rota.client.wire import offload, sealing
from rota.client.wire.sealing import PLAIN_FROM

from ..channel.deadline import now
from ..channel.frames import FUNCTIONS_MAX, Work
from ..channel.outcomes import ERROR_CHARS_MAX, NONE_PICKLED, is_delay
from . import hooks, telling
from .around import Around, Unfit, around_of
from .batches import Batches
from .context import Cancelled, headers, suspended_in

log = logging.getLogger("rota.job")

TRACEBACK_CHARS_MAX = 16_000

KEY_S = 10.0
"""When a job is offered again that is sealed with a key which was not here."""


class Runnable(Protocol):
    """What a runner needs of a `rota.client.tasks.task.Task`."""

    name: str
    function: Callable[..., Any]
    info: TaskInfo

    @property
    def described(self) -> TaskInfo: ...

    def retry_decision(self, error: BaseException, attempt: int, options: Options = ...) -> Decision: ...


class Call:
    """What the jobs of one piece of a bundle share. Without a `function` nothing can be called: `problem` says why."""

    __slots__ = ("around", "codec", "function", "is_json", "none_is_plain", "problem", "task", "timeout_s", "work")

    def __init__(
        self, work: Work, function: Callable[..., Any] | None, task: Runnable | None, problem: str,
        around: Around | None = None,
    ) -> None:
        self.work = work
        self.function = function
        self.task = task
        self.problem = problem
        self.codec: Codec = work.codec
        self.around = around            # None: there is nothing to do but to call the function
        self.is_json = work.codec == "json"
        self.none_is_plain = not self.is_json and not sealing.active        # all that need be said is that it is None
        self.timeout_s = work.options.timeout_s         # of one attempt
        if self.timeout_s is None and task is not None:
            self.timeout_s = task.info.timeout_s

    def arguments(self, payload: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if payload < PLAIN_FROM:
            payload = bare(payload, sealing.ARGUMENTS)
        call: tuple[Any, ...]
        if MARK_BYTE not in payload and not self.is_json:
            call = pickle.loads(payload)    # noqa: S301 - the node has verified it; it names nothing: as `load_call`
        elif MARK in payload:
            with open_with(self._inputs(), _opened):
                call = load_call(self.codec, payload)
        else:
            call = load_call(self.codec, payload)
        if len(call) == 2:
            return call
        headers.set(call[2])
        return call[:2]

    @property
    def is_late(self) -> bool:
        """Whether it is too late for its jobs to begin."""
        return self.work.expires_ms != 0 and now_s() * 1000 >= self.work.expires_ms

    def expired(self, index: int) -> Outcome:
        log.warning("%s was not run: %s", self.work.task, EXPIRED)
        return Outcome(index, "expired", error=EXPIRED)

    def _inputs(self) -> dict[tuple[str, int], ResultEntry]:
        return {(bundle, entry.index): entry for bundle, entries in self.work.inputs.items() for entry in entries}

    def succeeded(self, index: int, result: Any, began: float = 0.0) -> Outcome:
        """The outcome of a job that returned; a result that cannot be sent fails the job, never the runner. `began`: as
        `Lease.wait` said."""
        ran_s = now() - began if began else 0.0
        if result is None and self.none_is_plain:
            return Outcome(index, "ok", NONE_PICKLED, "", "", 0.0, "pickle", ran_s)     # in order: names would cost
        try:
            value, codec = dump_value(result, self.codec)
        except BaseException as error:
            if isinstance(result, GeneratorType | AsyncGeneratorType):
                return self._useless(index, (
                    f"{self.work.task} returned a generator: nothing of it has run. A job is a function that returns "
                    "its result; let it return a list"
                ), error)
            return self._useless(index, one_line(f"the job ran, but {describe(error)}"), error)
        if len(value) > BUNDLE_BYTES_MAX and offload.active and codec != "json":
            try:
                value = offload.stored(value, self.work.bundle.partition(".")[0], index, "result")
            except BaseException as error:
                return self._useless(index, one_line(f"the job ran, but {describe(error)}"), error)
        if len(value) > BUNDLE_BYTES_MAX:
            too_large = JobTooLarge(len(value), BUNDLE_BYTES_MAX, "its result")
            return self._useless(index, (
                f"the job ran, but its result takes {len(value):,} bytes; the limit is {BUNDLE_BYTES_MAX:,}. "
                "Put large data into a file, an object store or a database, and return its address."
            ), too_large)
        return Outcome(index, "ok", value, "", "", 0.0, codec, ran_s)

    def _useless(self, index: int, text: str, error: BaseException) -> Outcome:
        """It ran, and its result cannot be kept: a second run would not help."""
        log.error("%s failed for good: %s", self.work.task, text)
        hooks.report(error)
        return Outcome(index, "failed", error=text)

    def failed(self, index: int, error: BaseException) -> Outcome:
        """The outcome of a job that raised: the task decides whether it is tried again. It is reported (an error in
        the log, the hooks) when it is not; earlier failures are warnings. Never raises, whatever the exception's own
        class, the task's rules or the application's logging do."""
        try:
            return self._failed(index, error)
        except BaseException as worse:
            return Outcome(index, "failed", error=one_line(f"{describe(error)}; then came {describe(worse)}"))

    def _failed(self, index: int, error: BaseException) -> Outcome:
        work, text = self.work, describe(error)
        if (suspended := suspended_in(error)) is not None:
            log.info("%s %s", work.task, suspended)
            return suspended.outcome(index)
        if isinstance(error, KeyMissing | OffloadUnavailable):
            log.warning("%s waits for a runner that can have its arguments: %s", self.work.task, text)
            return Outcome(index, "snooze", error=text, delay_s=KEY_S)
        if isinstance(error, Unfit):
            return self._useless(index, one_line(str(error)), error)
        if isinstance(error, Cancelled):
            return Outcome(index, "cancelled", error="cancelled")
        if isinstance(error, Snooze) and is_delay(error.after_s):
            log.info("%s %s", work.task, text)
            return Outcome(index, "snooze", error=text, delay_s=error.after_s)
        trace = trace_of(error)
        decision = self._decide(error)
        if decision.delay_s is not None and is_delay(decision.delay_s):
            log.warning(
                "%s failed at attempt %d, and is tried again in %.3g s: %s",
                work.task, work.attempt, decision.delay_s, text,
            )
            return Outcome(index, "retry", error=text, traceback=trace, delay_s=decision.delay_s)
        problem = decision.problem if decision.delay_s is None else f"{decision.delay_s!r} is not a delay"
        if problem:
            text = one_line(f"{text}; {problem}")
        log.error("%s failed for good, at attempt %d: %s\n%s", work.task, work.attempt, text, trace.rstrip())
        hooks.report(error)
        return Outcome(index, "failed", error=text, traceback=trace)

    def not_run(self, index: int) -> Outcome:
        log.error("%s cannot be run: %s", self.work.task, self.problem)
        hooks.report(RotaError(self.problem))
        return Outcome(index, "failed", error=self.problem)

    def _decide(self, error: BaseException) -> Decision:
        work = self.work
        if isinstance(error, Snooze):       # its delay is none
            return Decision(None, f"{error.after_s!r} is not a delay")
        if self.task is not None:
            return self.task.retry_decision(error, work.attempt, work.options)
        return Retries().decide(TaskInfo(work.task, work.mode), error, work.attempt, work.options)   # shipped by value


class Functions:
    """Tasks by name, and code shipped by value by its number."""

    def __init__(self, tasks: dict[str, Runnable]) -> None:
        self._tasks = tasks
        self._shipped: dict[int, bytes | Callable[..., Any]] = {}       # bytes: not loaded yet
        self._by_digest: dict[bytes, Callable[..., Any]] = {}
        self._around: dict[str, Around | None] = {}
        self._batches = Batches()
        self._around_shipped: dict[int, Around | None] = {}

    def learn(self, number: int, code: bytes) -> None:
        self._shipped[number] = code
        for forgotten in (number, number - FUNCTIONS_MAX):      # (the latter by the node, too)
            self._around_shipped.pop(forgotten, None)
        self._shipped.pop(number - FUNCTIONS_MAX, None)

    def call(self, work: Work, number: int) -> Call:
        """Never raises: what cannot be resolved fails the jobs, not the runner."""
        task = self._tasks.get(work.task)
        if number:
            try:
                function = self._load(number)
                if number not in self._around_shipped:
                    self._around_shipped[number] = around_of(work.task, function, None)
                return Call(work, function, task, "", self._around_shipped[number])
            except BaseException as error:
                return Call(work, None, task, one_line(f"the function {work.task} cannot be loaded: {describe(error)}"))
        if task is None:
            return Call(work, None, None, f"no task {work.task} in the modules this node was told to import (--app)")
        if work.task not in self._around:
            self._around[work.task] = around_of(work.task, task.function, task)
        if task.info.batch:
            return Call(work, self._batches.of(task, work.queue), task, "", self._around[work.task])
        return Call(work, task.function, task, "", self._around[work.task])

    def _load(self, number: int) -> Callable[..., Any]:
        function = self._shipped[number]
        if isinstance(function, bytes):
            digest = hashlib.sha256(function).digest()
            if digest not in self._by_digest:
                if len(self._by_digest) >= FUNCTIONS_MAX:
                    del self._by_digest[next(iter(self._by_digest))]
                self._by_digest[digest] = load_function(function)
            function = self._shipped[number] = self._by_digest[digest]
        if not callable(function):
            raise TypeError(f"a {type(function).__name__} cannot be called")
        return function


def after(began: float, outcome: Outcome) -> Outcome:
    """The outcome, with how long the job took since it began; 0: it did not begin."""
    return replace(outcome, ran_s=now() - began) if began else outcome


def _opened(job_id: str, entry: ResultEntry) -> Any:
    """What stands in the place of a handle: the job's result, or how it ended as an exception."""
    try:
        check_entry(job_id, entry)
    except RotaError as error:
        return error
    return load_value(entry.codec, entry.value)


def describe(error: BaseException) -> str:
    """One bounded line. Never raises, whatever the exception's own methods do."""
    try:
        text = str(error)
    except BaseException:
        text = "(its text cannot be had)"
    name = type(error).__qualname__
    return one_line(f"{name}: {text}" if text else name)


def one_line(text: str) -> str:
    return telling.one_line(text, ERROR_CHARS_MAX)


def trace_of(error: BaseException) -> str:
    """The traceback from the job's own first frame on, cut in the middle if it is long. Never raises."""
    try:
        lines = traceback.format_exception(type(error), error, _users(error.__traceback__))
        text = "".join(lines)
    except BaseException:
        return f"{type(error).__qualname__} (its traceback cannot be formatted)"
    text = text.encode("utf-8", "replace").decode()
    if len(text) <= TRACEBACK_CHARS_MAX:
        return text
    half = TRACEBACK_CHARS_MAX // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"


def _users(trace: TracebackType | None) -> TracebackType | None:
    """Skip the runner's own frames."""
    at = trace
    while at is not None and at.tb_frame.f_globals.get("__package__") == __package__:
        at = at.tb_next
    return at or trace
