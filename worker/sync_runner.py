"""The runner of plain functions: one job after another, on the main thread."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import threading
from collections import deque
from contextvars import Context, copy_context
from pathlib import Path

from rota.client.model import Outcome

from . import hooks
from .channel import BadFrame, BlockingEnd, ChannelClosed
from .context import running
from .execution import Call, Functions
from .frames import Done, Drop, Dropped, Function, Question, Ready, Run, Started, Starved, Stop, Stored, Told, ToRunner
from .permits import take
from .transport import RunnerTransport

EXIT_CHANNEL = 70
"""The exit status of a runner whose channel is gone or garbled."""


class SyncRunner:
    """Each outcome is sent as soon as its job has ended: if the next job kills the process, this one is safe.

    The main thread reads the channel between jobs. As soon as a job enqueues, somebody must read while jobs run: from
    then on a thread does, and the main thread gets its frames from that.
    """

    def __init__(self, sock: socket.socket, permits: int) -> None:
        self._channel: BlockingEnd[ToRunner] = BlockingEnd(sock, ToRunner)
        self._permits = permits
        self._jobs: deque[tuple[Call, int, bytes]] = deque()
        self._reading = threading.Lock()
        self._reader: threading.Thread | None = None
        self._inbox: queue.SimpleQueue[list[ToRunner]] = queue.SimpleQueue()
        self._stopping = False
        self.transport = RunnerTransport(self._ask)

    def serve(self, functions: Functions, ready: Ready) -> None:
        """Until the node says stop. Does not return if the channel is lost."""
        self._functions = functions
        hooks.run_blocking(hooks.start_hooks())
        clean = _Surroundings()
        base = copy_context()
        try:
            self._channel.send(ready)
            while not self._stopping:
                if self._jobs:
                    self._next(base)
                    clean.restore()
                else:
                    self._receive()
        except (ChannelClosed, BadFrame):
            os._exit(EXIT_CHANNEL)
        hooks.run_blocking(hooks.stop_hooks())

    def _next(self, base: Context) -> None:
        if not take(self._permits):
            return self._starve()
        call, index, payload = self._jobs.popleft()
        if call.work.report_start:
            self._channel.send(Started(call.work.key, index))
        outcome = base.copy().run(_run, call, index, payload)
        self._channel.send(Done([(call.work.key, outcome)]))

    def _starve(self) -> None:
        """The node has taken the permits back, and its `Drop` is on its way."""
        self._channel.send(Starved())
        while self._jobs:
            self._receive()

    def _receive(self) -> None:
        frames: list[ToRunner] | None = None
        if self._reader is None:
            with self._reading:
                if self._reader is None:            # looked again: it may have come while this thread waited
                    frames = self._channel.receive()
        for frame in self._inbox.get() if frames is None else frames:
            self._take(frame)

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
            case Stored() | Told():
                self.transport.answered(frame)
            case Stop():
                self._stopping = True

    def _ask(self, ask: Question) -> None:
        """From any thread."""
        if self._reader is None:
            reader = threading.Thread(target=self._read, name="rota-channel", daemon=True)
            self._reader = reader
            reader.start()
        self._channel.send(ask)

    def _read(self) -> None:
        try:
            while True:
                with self._reading:
                    frames = self._channel.receive()
                others: list[ToRunner] = []
                for frame in frames:
                    if isinstance(frame, Stored | Told):
                        self.transport.answered(frame)
                    else:
                        others.append(frame)
                if others:
                    self._inbox.put(others)
        except (ChannelClosed, BadFrame):
            os._exit(EXIT_CHANNEL)


def _run(call: Call, index: int, payload: bytes) -> Outcome:
    function = call.function
    if function is None:
        return call.not_run(index)
    running.set((call.work, index))
    try:
        args, kwargs = call.arguments(payload)
        result = function(*args, **kwargs)
    except BaseException as error:      # also SystemExit: a job may not end its runner
        return call.failed(index, error)
    return call.succeeded(index, result)


class _Surroundings:
    """What a job may change for the next one and is cheap to put back: working directory, umask, SIGTERM. The rest
    (environment, locale, other signals, modules) is the application's own business, and stays as it left it."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._cwd = Path.cwd()
        self._umask = os.umask(0o022)
        os.umask(self._umask)
        self._sigterm = signal.getsignal(signal.SIGTERM)

    def restore(self) -> None:
        if os.getpid() != self._pid:
            os._exit(0)                 # a job has forked and let the child return: it is not a second runner
        with contextlib.suppress(OSError):
            os.chdir(self._cwd)
        os.umask(self._umask)
        if signal.getsignal(signal.SIGTERM) is not self._sigterm:
            signal.signal(signal.SIGTERM, self._sigterm)
