"""What a job has done is remembered: steps that run once, sleep that holds no slot, results of other jobs.

    @rota.task
    def fulfil(order: int) -> None:
        payment = rota.step("charge", charge, order)
        rota.sleep(hours=24)
        rota.step("ship", ship, order, payment)

A run that goes on where another one was begins anew from the top: its steps answer from memory. The node keeps what is
remembered and stores it under the job's claim; the runner asks it the first time that a run needs to know.
(docs/steps.md, docs/decisions/0031)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, ParamSpec, TypeVar, overload

import msgspec

from rota.client import errors
from rota.client.api.results import check_entry
from rota.client.calls import default, handle
from rota.client.calls.handle import JobHandle, JobHandles, Taking, taking
from rota.client.calls.pickling import dump_value, load_value
from rota.client.ids import job_id
from rota.client.model import BUNDLE_BYTES_MAX, DURATION_S_MAX, ResultEntry, Step
from rota.client.process.threads import Future, wait
from rota.client.upstream import upstream_of
from rota.client.wire import frames as wire

from ..channel.frames import AskRemember, AskSteps, Question, Work
from .context import Runner, Suspended, running
from .environment import forks
from .telling import telling
from .waiting import awaited

P = ParamSpec("P")
T = TypeVar("T")

NAME_CHARS_MAX = 128

NO_BUNDLE = "000000000000-00000000"

_in_step: ContextVar[tuple[_Memory, str] | None] = ContextVar("rota_step", default=None)
"""The step that this code runs in, and whose (`rota.testing.inline` runs jobs inside of steps of others)."""


class _Memory:
    """Of one run of one job."""

    def __init__(self, work: Work, index: int) -> None:
        self.work, self.index = work, index
        self.known: dict[str, Step] | None = None
        self.serial = False
        self.names: set[str] = set()
        self.sleeps = self.waits = 0
        self.under_way: set[asyncio.Future[None]] = set()

    async def landed(self) -> None:
        """What other coroutines of the run are doing in steps is remembered before the run ends in a sleep: cancelled
        in its midst, it would be done again."""
        while self.under_way:
            await asyncio.wait(self.under_way)

    def question(self) -> AskSteps:
        return AskSteps(0, self.work.key, self.index)

    def learn(self, reply: Any) -> None:
        _raise_refusal(reply)
        if self.known is None:
            self.known, self.serial = {step.name: step for step in reply.steps}, reply.serial

    def claim(self, name: str) -> None:
        """This run uses the name now."""
        if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable():
            raise errors.InvalidJob(f"{name!r:.80} is not a valid step name: a printable text of 1 to {NAME_CHARS_MAX}")
        if name in self.names:
            raise errors.InvalidJob(
                f"this run of the job has a step {name!r:.80} already: a value is found again by its step's name, so "
                f"give each its own, as in rota.step(f\"{name:.40} {{item}}\", …)"
            )
        self.names.add(name)


@overload
def step(
    name: str, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
) -> Coroutine[Any, Any, T]: ...
@overload
def step(name: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
def step(name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a function once in the life of the running job, and remember what it returned: when the job runs again
    (a retry, a takeover, after `rota.sleep`), the call gives that and the function is not called.

    In an `async def` job await it: `await rota.step("charge", charge, order)`; `function` may be `async def` or plain
    there. In a plain job the function is plain, too.

    Args:
        name: what it is found again by; each name once in a run (in loops `f"send {item}"`). Texts of up to 128
            printable characters.
        function: what it raises is not remembered: the job fails, and the step is tried again with it.

    The value is in the store before the call returns: by pickle, as results are (by JSON in jobs that were enqueued as
    JSON); at most 256 KiB of it, 1 MiB and 1,000 steps in a job. A handle of a job is remembered as one. What is
    remembered goes when the job has ended. A run that is killed after the function has returned, and before the value
    is stored, calls it again next time.

    Raises:
        RuntimeError: no job runs here.
        InvalidJob: the name is none, or this run has used it; or there are too many steps.
        JobTooLarge: the value is, or all together are.
        NotSerializable: the value cannot be remembered.
        NotInJob: the job is of level `none`, which is in no store.
    """
    memory = _memory("rota.step()")
    memory.claim(name)
    if _has_loop():
        return _astep(memory, name, function, args, kwargs)
    if memory.known is None:
        memory.learn(_blocking(memory.question()))
    known = _known(memory, name)
    if known is not None:
        return _loaded(known)
    began_ms, token = _now_ms(), _in_step.set((memory, name))
    try:
        result = function(*args, **kwargs)
    finally:
        _in_step.reset(token)
    if asyncio.iscoroutine(result):
        result.close()
        raise errors.InvalidJob(f"step {name!r:.80}: its function is `async def`, so the job has to be, too")
    made = _made(memory, name, result, began_ms)
    _raise_refusal(_blocking(AskRemember(0, memory.work.key, memory.index, made)))
    _remember(memory, made)
    return result


async def _astep(
    memory: _Memory, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if memory.known is None:
        memory.learn(await _awaiting(memory.question()))
    known = _known(memory, name)
    if known is not None:
        return _loaded(known)
    over = asyncio.get_running_loop().create_future()
    memory.under_way.add(over)
    try:
        return await _first(memory, name, lambda: function(*args, **kwargs))
    finally:
        memory.under_way.discard(over)
        over.set_result(None)


async def _first(memory: _Memory, name: str, call: Callable[[], Any]) -> Any:
    """Its one run."""
    began_ms, token = _now_ms(), _in_step.set((memory, name))
    try:
        result = await awaited(call())
    finally:
        _in_step.reset(token)
    made = _made(memory, name, result, began_ms)
    _raise_refusal(await _awaiting(AskRemember(0, memory.work.key, memory.index, made)))
    _remember(memory, made)
    return result


class _Slept(Awaitable[None]):
    """It is over: nothing to wait for."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


def sleep(seconds: float | timedelta = 0.0, /, *, name: str = "", **units: float) -> Awaitable[None]:
    """Let the running job sleep, without its slot: `rota.sleep(3600)`, `rota.sleep(hours=1)`; in an `async def` job
    `await rota.sleep(3600)`.

    The run ends here (`finally` and context managers see it; steps that other coroutines of an `async def` job have
    under way end first), and when the time is over the job is run again from its
    beginning, on any node: what it has done by `rota.step` answers from memory, and this call returns. That is no
    attempt in the sense of `max_attempts`; `timeout` counts for each run alone. A job of a serial queue keeps its place
    at the head, and those behind it wait.

    Args:
        seconds: how long, from the first time that the job comes here: a retry or a takeover does not begin it anew.
        name: what it is found again by; by default its number among the sleeps of the run.
        units: or as `datetime.timedelta` takes it: days, hours, minutes.

    Raises:
        RuntimeError: no job runs here.
        InvalidJob: that is no time, or it is inside of a step.
        NotInJob: the job is of level `none`.
    """
    memory = _memory("rota.sleep()")
    duration_s = _seconds(seconds, units, "a sleep of")
    if step_name := _step_of(memory):
        raise errors.InvalidJob(f"rota.sleep() inside of step {step_name!r:.80}: sleep between steps")
    memory.sleeps += 1
    name = name or f"sleep {memory.sleeps}"
    memory.claim(name)
    if _has_loop():
        return _asleep(memory, name, duration_s)
    if memory.known is None:
        memory.learn(_blocking(memory.question()))
    known = _known(memory, name)
    if known is None:
        known = _bed(name, duration_s)
        _raise_refusal(_blocking(AskRemember(0, memory.work.key, memory.index, known)))
        _remember(memory, known)
    _wake(known)
    return _Slept()


async def _asleep(memory: _Memory, name: str, duration_s: float) -> None:
    if memory.known is None:
        memory.learn(await _awaiting(memory.question()))
    known = _known(memory, name)
    if known is None:
        known = _bed(name, duration_s)
        _raise_refusal(await _awaiting(AskRemember(0, memory.work.key, memory.index, known)))
        _remember(memory, known)
    if known.ended_ms > _now_ms():
        await memory.landed()
    _wake(known)


def _bed(name: str, duration_s: float) -> Step:
    now_ms = _now_ms()
    return Step(name, b"", "pickle", now_ms, now_ms + int(duration_s * 1000), "sleep")


def _wake(known: Step) -> None:
    """Unless its time is over, the run ends here."""
    left_s = (known.ended_ms - _now_ms()) / 1000
    if left_s > 0:
        until = datetime.fromtimestamp(known.ended_ms / 1000, UTC).isoformat(timespec="seconds")
        raise Suspended("sleep", f"sleeps until {until}", delay_s=left_s)


LATE_S = 1.0
"""A wait with a time-out that is over as soon as this is waited for in the run: the clocks of a node and of the master
that woke the job may differ so much."""


class Waits:
    """Waiting for results of other jobs, inside of one: what `handle.result()` does there."""

    clock: Callable[[], float] = staticmethod(time.time)
    """By which jobs sleep, in seconds since 1970. Tests travel."""

    def waits(self, source: handle.Source) -> bool:
        """Whether it is for us: in a job that runs, and of the client that its enqueues go through. (A client of the
        job's own, for another cluster, waits as everywhere.)"""
        ours: object = default.client() if running.get() is not None else None
        return source is ours

    def results(self, refs: Sequence[tuple[str, int]], timeout: float | None) -> list[Any]:
        wait_, answer = self._waiting(self._prepared(), refs, timeout), None
        while True:
            try:
                asked = wait_.send(answer)
            except StopIteration as found:
                return list(found.value)
            answer = None
            if isinstance(asked, float):
                time.sleep(asked)
            else:
                answer = _blocking(asked)

    async def aresults(self, refs: Sequence[tuple[str, int]], timeout: float | None) -> list[Any]:
        memory = self._prepared()
        wait_, answer = self._waiting(memory, refs, timeout), None
        while True:
            try:
                asked = wait_.send(answer)
            except StopIteration as found:
                return list(found.value)
            except Suspended:
                await memory.landed()
                raise
            answer = await (asyncio.sleep(asked) if isinstance(asked, float) else _awaiting(asked))

    def _prepared(self) -> _Memory:
        memory = _memory("waiting for a job")
        if step_name := _step_of(memory):
            raise errors.InvalidJob(f"a wait for a job inside of step {step_name!r:.80}: wait between steps")
        return memory

    def _waiting(
        self, memory: _Memory, refs: Sequence[tuple[str, int]], timeout: float | None
    ) -> Generator[Question | float, Any, list[Any]]:
        """Yields what the node is asked, and for how many seconds the run waits here; gives the results. With a
        time-out it is remembered when it began and, if it is over before the jobs are, that: each further run is
        told the same, whatever has ended by then."""
        if timeout is None:
            found = _found(memory, refs)
            if found is None and memory.known is None:
                memory.learn((yield memory.question()))
            if found is None:
                raise self._suspended(memory, refs)
            return found
        timeout_s = _seconds(timeout, {}, "a time-out of")
        memory.waits += 1
        name, over = f"wait {memory.waits}", f"wait {memory.waits} is over"
        memory.claim(name)
        memory.claim(over)
        if memory.known is None:
            memory.learn((yield memory.question()))
        known = _known(memory, name)
        if _known(memory, over) is None:
            found = _found(memory, refs)
            if found is not None:
                return found
            suspended = self._suspended(memory, refs, timeout_s)        # (or it is refused)
            if known is None:
                now_ms = _now_ms()
                until_ms = now_ms + int(timeout_s * 1000)
                yield from _kept(memory, Step(name, b"", "pickle", now_ms, until_ms, "wait"))
                raise suspended
            left_s = (known.ended_ms - _now_ms()) / 1000
            if left_s > LATE_S:
                raise self._suspended(memory, refs, left_s)
            if left_s > 0:
                yield left_s
            yield from _kept(memory, Step(over, b"", "pickle", known.began_ms, _now_ms(), "wait"))
        missing = _missing(memory, refs) or refs
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise errors.ResultTimeout(
            f"no result of job {job_id(*missing[0])}{more} within {timeout_s:g} s of when this job began to wait",
            job_id(*missing[0]),
        )

    def _suspended(
        self, memory: _Memory, refs: Sequence[tuple[str, int]], timeout_s: float | None = None
    ) -> Suspended:
        """What ends the run, until they have ended, or the time is over."""
        if memory.serial:
            raise errors.NotInJob(
                "a job of a serial queue cannot wait for another one: it would hold up its queue for as long. Let the "
                "other job enqueue what comes next"
            )
        if (memory.work.bundle, memory.index) in refs:
            raise errors.NotInJob("a job cannot wait for itself")
        missing = _missing(memory, refs)
        first = job_id(*missing[0]) + (f" and {len(missing) - 1:,} more" if len(missing) > 1 else "")
        value = msgspec.msgpack.encode(upstream_of((), missing))
        if len(value) > BUNDLE_BYTES_MAX:
            raise errors.InvalidJob("a job cannot wait for so many jobs at a time: wait for some of them first")
        delay_s = 0.0 if timeout_s is None else max(timeout_s, 0.001)       # (0 stands for no time-out)
        return Suspended("wait", f"waits for job {first}", delay_s=delay_s, value=value)


def _missing(memory: _Memory, refs: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    given = _given(memory)
    return [ref for ref in refs if ref not in given]


def _found(memory: _Memory, refs: Sequence[tuple[str, int]]) -> list[Any] | None:
    """The results, or the first error among them; None if some are not here yet."""
    given = _given(memory)
    if not all(ref in given for ref in refs):
        return None
    values = []
    for ref in refs:
        entry = given[ref]
        check_entry(job_id(*ref), entry)
        if not entry.value:
            raise errors.NotInJob(
                f"job {job_id(*ref)} has ended well, and its result was not asked for when this one began to wait "
                "(after=): take its handle as an argument"
            )
        values.append(load_value(entry.codec, entry.value))
    return values


def _given(memory: _Memory) -> dict[tuple[str, int], ResultEntry]:
    return {
        (bundle, entry.index): entry for bundle, entries in memory.work.inputs.items() for entry in entries
    }


# -- what is common ------------------------------------------------------------------------------------------------


def _memory(what: str) -> _Memory:
    job = running.get()
    if job is None:
        raise RuntimeError(f"{what}: no job is running here")
    if forks.forked:
        raise RuntimeError(f"{what}: this process was forked off a job")
    found = telling.memories.get((job[0].key, job[1]))
    if not isinstance(found, _Memory) or found.work is not job[0]:
        telling.memories.pop((job[0].key, job[1]), None)
        found = telling.remember(*job, _Memory(*job))
    return found


def _step_of(memory: _Memory) -> str:
    """The step of this run that this code runs in, or ""."""
    inside = _in_step.get()
    return inside[1] if inside is not None and inside[0] is memory else ""


def _known(memory: _Memory, name: str) -> Step | None:
    assert memory.known is not None
    return memory.known.get(name)


def _kept(memory: _Memory, made: Step) -> Generator[Question, Any, None]:
    """Asks the node to remember it."""
    _raise_refusal((yield AskRemember(0, memory.work.key, memory.index, made)))
    _remember(memory, made)


def _remember(memory: _Memory, made: Step) -> None:
    assert memory.known is not None
    memory.known[made.name] = made


def _made(memory: _Memory, name: str, result: Any, began_ms: int) -> Step:
    token = taking.set(Taking([], handle_of, handles_of))
    try:
        value, codec = dump_value(result, memory.work.codec)
    except errors.NotSerializable as error:
        raise errors.NotSerializable(str(error).replace("the result", f"what step {name!r:.80} returned", 1)) from None
    finally:
        taking.reset(token)
    if len(value) > BUNDLE_BYTES_MAX:
        raise errors.JobTooLarge(len(value), BUNDLE_BYTES_MAX, f"what step {name!r:.80} returned")
    return Step(name, value, codec, began_ms, _now_ms())


def _loaded(known: Step) -> Any:
    return load_value(known.codec, known.value)


def handle_of(bundle: str, index: int) -> JobHandle[Any]:
    """What pickle calls for a handle that a step returned."""
    return default.client().handle(job_id(bundle, index))


def handles_of(bundles: list[tuple[str, int]]) -> JobHandles[Any]:
    """The same for many."""
    return handle_of(bundles[0][0] if bundles else NO_BUNDLE, 0).beside(bundles)


def _raise_refusal(reply: Any) -> None:
    if reply.refusal is not None:
        raise wire.error_of(reply.refusal)


def _asked(question: Question) -> Future[Any]:
    if Runner.ask is None:
        raise RuntimeError("no node keeps what this job remembers")
    return Runner.ask(question)


def _blocking(question: Question) -> Any:
    return wait(_asked(question))


async def _awaiting(question: Question) -> Any:
    return await asyncio.wrap_future(_asked(question))


def _has_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _now_ms() -> int:
    return int(Waits.clock() * 1000)


def _seconds(seconds: float | timedelta, units: dict[str, float], what: str) -> float:
    try:
        duration = seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)
        total = (duration + timedelta(**units)).total_seconds()
    except (TypeError, OverflowError, ValueError):
        total = -1.0
    if not 0 <= total <= DURATION_S_MAX:
        raise errors.InvalidJob(f"{what} {seconds!r:.40} is not valid: a number of seconds from 0 on, or a timedelta")
    return total


def install() -> None:
    """In a process that runs jobs."""
    if not handle.inside:
        handle.inside.append(Waits())
