"""The runner of `async def` jobs: all of them at once, on one event loop."""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Coroutine
from contextvars import copy_context
from types import CoroutineType

from rota.client.calls.handle import JobHandle
from rota.client.model import Outcome

from ..channel.channel import BadFrame, LoopEnd
from ..channel.deadline import Lease, now
from ..channel.frames import (
    EXIT_CHANNEL,
    Cancel,
    Done,
    Drop,
    Dropped,
    Function,
    Interrupted,
    ProgressUpdate,
    Ready,
    Report,
    Reported,
    Run,
    Started,
    Starved,
    Stop,
    ToRunner,
    Touched,
    Well,
    Work,
)
from ..channel.job_numbers import job_number, job_of
from . import hooks, resources
from .carriers import Carriers
from .context import Runner, running
from .environment import forks, logs
from .environment.surroundings import Surroundings
from .execution import Call, Functions, after
from .telling import telling

OUTCOMES_PER_FRAME = 500
FRAME_VALUE_BYTES = 4 * 1024 * 1024


class AsyncRunner:
    """Outcomes are sent once per turn of the loop. `at_once`: so many jobs may have begun and not ended."""

    def __init__(self, sock: socket.socket, permits: int, lease: Lease, *, at_once: int = sys.maxsize) -> None:
        self._at_once = at_once
        self._sock = sock
        self._permits = permits
        self._lease = lease
        self._cancelled: dict[int, str] = {}            # number -> "" (asked for), or the words of its timeout
        self._clocks: dict[int, tuple[asyncio.TimerHandle, float]] = {}      # number -> its timer, and its timeout
        self._outbox: list[tuple[int, Outcome]] = []
        self._heard: deque[ProgressUpdate] = deque()              # on its way to the node
        self._well: dict[int, tuple[list[int], list[float]]] = {}       # those that have returned None, by work

    async def serve(self, functions: Functions, ready: Ready) -> None:
        """Until the node says stop. Does not return if the channel is lost."""
        self._functions = functions
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._thread = threading.get_ident()
        Runner.touch, Runner.wanted_gone = self._touched, self._wanted_gone
        telling.send = self._progressed
        await hooks.run(hooks.start_hooks())
        logs.settle()
        self._clean = Surroundings()
        self._carriers = Carriers(self._run, self._at_once)
        self._channel: LoopEnd[ToRunner] = LoopEnd(
            self._sock, ToRunner, on_frames=self._receive, on_lost=self._lost
        )
        self._channel.send(ready)
        await self._stop.wait()
        self._carriers.forget_waiting()
        for task in list(self._carriers.tasks.values()):
            task.cancel()
        await resources.close()
        await hooks.run(hooks.stop_hooks())

    def _receive(self, frames: list[ToRunner]) -> float:
        for frame in frames:
            self._take(frame)
        self._carriers.begin()
        return 0.0

    def _take(self, frame: ToRunner) -> None:
        match frame:
            case Run(work, number, spare):
                self._carriers.add(self._functions.call(work, number), spare=spare)
            case Function(number, blob):
                self._functions.learn(number, blob)
            case Cancel(key, index):
                self._cancel(job_number(key, index), "")
            case Drop():
                for forgotten in self._carriers.forget_waiting():
                    self._cancelled.pop(forgotten, None)
                # Behind the first steps of those that have a task: they must find no permit of a later one.
                self._loop.call_soon(self._channel.send, Dropped())
            case Report(number, work, index, error):
                copy_context().run(hooks.report_lost, work, index, error)
                self._channel.send(Reported(number))
            case Stop():
                self._stop.set()

    async def _run(self, call: Call, job: tuple[Work, int], payload: bytes, number: int) -> float:
        """Returns when it ended, as `now` says."""
        try:
            os.eventfd_read(self._permits)      # (as `start_permits.take`)
        except BlockingIOError:
            self._carriers.over(number)
            self._channel.send(Starved())
            return now()
        except OSError:                     # a job has closed what is not its own
            os._exit(EXIT_CHANNEL)
        work, index = job
        function, timeout_s, began = call.function, call.timeout_s, 0.0
        if work.report_start:
            self._channel.send(Started(work.key, index))
        if timeout_s is not None:
            self._start_clock(number, timeout_s)
        running.set(job)
        if number in self._cancelled:
            return self._ended(work, index, number, Outcome(index, "cancelled"))
        if function is None:
            return self._ended(work, index, number, call.not_run(index))
        outcome: Outcome | None = None
        try:                                # all in this coroutine: one more, or a call more, costs every job
            args, kwargs = call.arguments(payload)
            began = self._lease.wait()
            if work.expires_ms and call.is_late:
                return self._ended(work, index, number, call.expired(index))
            around = call.around
            result = function(*args, **kwargs) if around is None else around.on_loop(args, kwargs, call.codec)
            if type(result) is CoroutineType:
                result = await result
            while result is not None and hasattr(type(result), "__await__"):        # (as `awaited`)
                if type(result) is not CoroutineType and isinstance(result, JobHandle):
                    break                   # a job that waited for it would run again, and make another one
                result = await result
        except BaseException as error:      # also SystemExit: a job may not end its runner
            outcome = self._raised(call, index, number, began, error)
        else:
            if forks.forked:
                forks.leave(None)           # a job has forked and let the child return: it is not a second runner
            if result is not None or not call.none_is_plain:
                outcome = call.succeeded(index, result, began)
        return self._ended(work, index, number, outcome, began)

    def _raised(self, call: Call, index: int, number: int, began: float, error: BaseException) -> Outcome:
        if forks.forked:
            forks.leave(error)
        words = self._cancelled.get(number)
        if words is None or not isinstance(error, asyncio.CancelledError):
            return after(began, call.failed(index, error))
        return after(began, call.failed(index, TimeoutError(words)) if words else Outcome(index, "cancelled"))

    def _ended(self, work: Work, index: int, number: int, outcome: Outcome | None, began: float = 0.0) -> float:
        """Without an `outcome` it has returned None. Returns when it ended."""
        at = now()
        if telling.used:
            telling.ended(work, index)
        if self._clocks and (clock := self._clocks.pop(number, None)) is not None:
            clock[0].cancel()
        if self._cancelled:
            self._cancelled.pop(number, None)
        self._carriers.over(number)
        if not self._outbox and not self._well:
            self._loop.call_soon(self._flush)
        if outcome is not None:
            self._outbox.append((work.key, outcome))
        elif (well := self._well.get(work.key)) is not None:
            well[0].append(index)
            well[1].append(at - began)
        else:
            self._well[work.key] = [index], [at - began]
        return at

    def _start_clock(self, number: int, timeout_s: float) -> None:
        timer = self._loop.call_later(timeout_s, self._cancel, number, f"timed out after {timeout_s:g} s")
        self._clocks[number] = (timer, timeout_s)

    def _touched(self, work: Work, index: int) -> None:
        """From the job, or from a thread that it has started."""
        if not forks.forked:
            self._loop.call_soon_threadsafe(self._restart_clock, work.key, index)

    def _progressed(self, update: ProgressUpdate) -> None:
        """From the loop, or from any thread. What is said before a job ends goes before its outcome, though the frame
        of that may be due already, with others."""
        self._heard.append(update)
        if threading.get_ident() == self._thread:
            self._pass_on()
        else:
            self._loop.call_soon_threadsafe(self._pass_on)

    def _pass_on(self) -> None:
        while self._heard:
            self._channel.send(self._heard.popleft())

    def _restart_clock(self, key: int, index: int) -> None:
        number = job_number(key, index)
        clock = self._clocks.get(number)
        if clock is not None and number not in self._cancelled:
            clock[0].cancel()
            self._start_clock(number, clock[1])
            self._channel.send(Touched(key, index))

    def _wanted_gone(self, work: Work, index: int) -> bool:
        return self._cancelled.get(job_number(work.key, index)) == ""

    def _cancel(self, number: int, words: str) -> None:
        """Once. Then it has its grace to end in its own way, and the node keeps that time."""
        task = self._carriers.tasks.get(number)
        if number in self._cancelled or self._stop.is_set():
            return
        if task is None and not self._carriers.is_waiting(number):
            return
        self._cancelled[number] = words
        self._channel.send(Interrupted(*job_of(number)))
        if task is None:
            return
        coroutine = task.get_coro()
        if not isinstance(coroutine, Coroutine) or inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED:
            task.cancel()       # (else its first step will see it; a task cancelled before that never steps)

    def _flush(self) -> None:
        outcomes, self._outbox = self._outbox, []
        self._pass_on()
        well, self._well = self._well, {}
        if not self._carriers:
            self._clean.restore(idle=True)
        if well:
            self._channel.send(Well([(key, indexes, ran) for key, (indexes, ran) in well.items()]))
        at = 0
        while at < len(outcomes):
            end, size = at, 0
            while end < len(outcomes) and end - at < OUTCOMES_PER_FRAME and size < FRAME_VALUE_BYTES:
                size += len(outcomes[end][1].value)
                end += 1
            self._channel.send(Done(outcomes[at:end]))
            at = end

    def _lost(self, bad: BadFrame | None) -> None:
        os._exit(EXIT_CHANNEL)
