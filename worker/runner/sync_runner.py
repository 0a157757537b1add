"""The runner of plain functions: one job after another, on the main thread."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from contextvars import Context, copy_context

from rota.client.model import Outcome

from ..channel.channel import BadFrame, BlockingEnd, ChannelClosed
from ..channel.deadline import Lease, now
from ..channel.frames import (
    EXIT_CHANNEL,
    Done,
    Drop,
    Dropped,
    Function,
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
from ..channel.job_numbers import job_number
from ..channel.start_permits import take
from ..channel.tally import HOLD_S, Tally
from . import hooks, resources
from .context import Runner, running
from .environment import forks, logs
from .environment.surroundings import Surroundings
from .execution import Call, Functions, after
from .telling import telling
from .waiting import awaited


class SyncRunner:
    """Each outcome is told as soon as its job has ended, or noted where the node sees it (`..channel.tally`): if the
    next job kills the process, this one is safe."""

    def __init__(self, sock: socket.socket, permits: int, lease: Lease, tally: Tally) -> None:
        self._channel: BlockingEnd[ToRunner] = BlockingEnd(sock, ToRunner)
        self._permits = permits
        self._lease = lease
        self._tally = tally
        self._told_at = 0.0             # that jobs have ended; 0: since something was received, nothing was told
        self._noted = False             # since then
        self._permitted = False         # a permit is taken already
        self._jobs: deque[tuple[Call, int, bytes]] = deque()
        self._stopping = False

    def serve(self, functions: Functions, ready: Ready) -> None:
        """Until the node says stop. Does not return if the channel is lost."""
        self._functions = functions
        Runner.touch = self._touch
        telling.send = self._channel.send
        hooks.run_blocking(hooks.start_hooks())
        logs.settle()
        clean = Surroundings()
        base = copy_context()
        try:
            self._channel.send(ready)
            while not self._stopping:
                if self._jobs:
                    self._next(base)
                    clean.restore(idle=not self._jobs)
                else:
                    self._receive()
        except (ChannelClosed, BadFrame, OSError):      # a job has closed what is not its own
            os._exit(EXIT_CHANNEL)
        resources.close_blocking()
        hooks.run_blocking(hooks.stop_hooks())

    def _next(self, base: Context) -> None:
        if not self._permitted and not take(self._permits):
            return self._starve()
        self._permitted = False
        call, index, payload = self._jobs.popleft()
        work = call.work
        if work.report_start:
            self._channel.send(Started(work.key, index))
        ended = base.copy().run(_run, call, index, payload, self._lease)
        says = work.report_start or telling.used        # that comes before its end
        if telling.used:
            telling.ended(work, index)
        if isinstance(ended, Outcome):
            self._channel.send(Done([(work.key, ended)]))
            return None
        began, at = ended
        if says or not self._jobs or at >= self._told_at + HOLD_S:
            return self._tell(work.key, index, at - began, at)
        self._permitted = take(self._permits)       # fails if this job has closed what is not its own: then it pays
        self._tally.note(job_number(work.key, index), at - began)
        self._noted = True
        return None

    def _tell(self, key: int, index: int, ran_s: float, at: float) -> None:
        """A job has returned None, others may have been noted."""
        try:
            self._channel.send(Well([(key, [index], [ran_s])]))
        except ChannelClosed:           # by this job, or by one of those; which must not be the one that pays
            if self._noted and _is_open(self._permits):
                self._tally.note(job_number(key, index), ran_s)
            raise
        self._told_at, self._noted = at, False

    def _touch(self, work: Work, index: int) -> None:
        """From the job, on whichever thread it calls: the node keeps the clock."""
        if not forks.forked:
            self._channel.send(Touched(work.key, index))

    def _starve(self) -> None:
        """The node has taken the permits back, and its `Drop` is on its way."""
        self._channel.send(Starved())
        while self._jobs:
            self._receive()

    def _receive(self) -> None:
        for frame in self._channel.receive():
            self._take(frame)
        self._told_at = 0.0             # the node may have thought that nothing was left here

    def _take(self, frame: ToRunner) -> None:
        match frame:
            case Run(work, number):
                call = self._functions.call(work, number)
                self._jobs.extend([(call, index, payload) for index, payload in work.jobs])
                work.jobs = []
            case Function(number, blob):
                self._functions.learn(number, blob)
            case Drop():
                self._jobs.clear()
                self._channel.send(Dropped())
            case Report(number, work, index, error):
                copy_context().run(hooks.report_lost, work, index, error)
                self._channel.send(Reported(number))
            case Stop():
                self._stopping = True


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _run(call: Call, index: int, payload: bytes, lease: Lease) -> Outcome | tuple[float, float]:
    """When it began and when it ended, if it has returned None."""
    running.set((call.work, index))
    function = call.function
    if function is None:
        return call.not_run(index)
    began = 0.0
    try:
        args, kwargs = call.arguments(payload)
        began = lease.wait()
        if call.work.expires_ms and call.is_late:
            return call.expired(index)
        around = call.around
        result = function(*args, **kwargs) if around is None else around.blocking(args, kwargs, call.codec)
        if result is not None and hasattr(type(result), "__await__"):
            result = asyncio.run(awaited(result))
    except BaseException as error:      # also SystemExit: a job may not end its runner
        if forks.forked:
            forks.leave(error)
        return after(began, call.failed(index, error))
    if forks.forked:
        forks.leave(None)               # a job has forked and let the child return: it is not a second runner
    if result is None and call.none_is_plain:
        return began, now()
    return call.succeeded(index, result, began)
