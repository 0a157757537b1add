"""A bulk enqueue under way: frames go out while the next are made.

`steps` is the one loop, without I/O and without a thread of its own: it yields what is to be waited for. `finish`
drives it for who blocks, `afinish` for a coroutine. Both do so where they are called: what the caller's own code does
(a generator of calls, `__reduce__`, a `key` function) runs on the caller's thread, never on a client's loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from ..calls.order import Call, Routed
from ..errors import InvalidJob, PartlyEnqueued, RotaError
from ..ids import job_id
from ..model import Enqueue, Level, Receipt
from . import bulk
from .bulk import PAUSE, Paused

if TYPE_CHECKING:
    from .engine import Engine

W = TypeVar("W", "Future[Any]", "asyncio.Future[Any]")

Answers = list[Receipt | RotaError]

FRAMES_AHEAD = 4
"""Sent before the first of them is answered. About 4,000 jobs: enough to keep the node busy while the next are made."""

TURN_S = 0.005
"""How long calls are made on an event loop before it may do something else."""


class Progress:
    """How far a bulk enqueue has come."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, int]] = []         # (bundle, number of jobs), in order
        self.levels: dict[str, Level] = {}              # of bundles that are not durable
        self.existing: set[int] = set()                 # which of these were there before
        self.fault: Exception | None = None

    def until_fault(self, frames: Iterator[list[Enqueue] | Paused]) -> Iterator[list[Enqueue] | Paused]:
        """The frames, up to the first error in making one (whatever the caller's own code raises) or storing one."""
        try:
            for frame in frames:
                yield frame
                if self.fault is not None:
                    return
        except Exception as error:
            self.fault = error

    def note(self, frame: list[Enqueue], answers: Answers) -> None:
        for enqueue, answer in zip(frame, answers, strict=True):
            if isinstance(answer, Receipt):
                self.stored.append((answer.bundle, enqueue.count))
                if answer.existing:
                    self.existing.add(len(self.stored) - 1)
                if answer.level != "durable":
                    self.levels[enqueue.bundle] = answer.level
            elif self.fault is None:
                self.fault = answer

    def check(self) -> None:
        """Raise what went wrong, if anything did."""
        if self.fault is None:
            return
        if not self.stored:
            raise self.fault
        ids = [job_id(bundle, index) for bundle, count in self.stored for index in range(count)]
        raise PartlyEnqueued(ids, self.fault) from self.fault


def steps(
    engine: Engine, task: Routed, calls: bulk.Calls, start: Callable[[Coroutine[Any, Any, Any]], W], *,
    in_turns: bool = False,
) -> Generator[W | None, Any, Progress]:
    """`start` begins a coroutine on the engine's loop. Yields what to wait for and is sent its result; None, if
    `in_turns`: let others have their turn. Returns when all is stored, or raises."""
    try:
        at = iter(calls)
    except TypeError:
        raise InvalidJob(f"{calls!r:.80} is not iterable: give a list or a generator of tuples of arguments") from None
    route, code = task.destination()
    if route.idempotency:
        raise InvalidJob("an idempotency_key names one job, and so cannot go with many: enqueue one at a time")
    route = yield start(engine.prepare(route, code, engine.patience(route)))
    seal = yield start(engine.seal(engine.patience(route)))
    progress = Progress()
    sent: deque[tuple[list[Enqueue], W]] = deque()
    frames = bulk.frames(task, route, _in_turns(at) if in_turns else at, seal, engine.names, engine.jobs_per_bundle)
    try:
        for frame in progress.until_fault(frames):
            if frame is PAUSE:
                yield None
                continue
            sent.append((frame, start(engine.send(frame, engine.patience(route)))))
            if len(sent) >= FRAMES_AHEAD:
                progress.note(sent[0][0], (yield sent[0][1]))
                sent.popleft()
        while sent:
            progress.note(sent[0][0], (yield sent[0][1]))
            sent.popleft()
    finally:
        for _, answer in sent:      # given up: interrupted, cancelled
            answer.cancel()
    progress.check()
    return progress


def finish(steps: Generator[Future[Any] | None, Any, Progress], wait: Callable[[Future[Any]], Any]) -> Progress:
    """Block until it is done."""
    answer: Any = None
    try:
        while True:
            wanted = steps.send(answer)
            answer = None if wanted is None else wait(wanted)
    except StopIteration as end:
        progress: Progress = end.value
        return progress
    finally:
        steps.close()


async def afinish(steps: Generator[Awaitable[Any] | None, Any, Progress]) -> Progress:
    """Await until it is done."""
    answer: Any = None
    try:
        while True:
            wanted = steps.send(answer)
            answer = await (asyncio.sleep(0) if wanted is None else wanted)
    except StopIteration as end:
        progress: Progress = end.value
        return progress
    finally:
        steps.close()


def _in_turns(calls: Iterator[Call | tuple[Any, ...]]) -> Iterator[Call | tuple[Any, ...] | Paused]:
    """The calls, and every few milliseconds a pause: a generator that is slow holds up nothing but itself."""
    until = time.monotonic() + TURN_S
    for call in calls:
        yield call
        if time.monotonic() > until:
            yield PAUSE
            until = time.monotonic() + TURN_S
