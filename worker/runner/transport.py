"""A job enqueues jobs: over its runner's second socket, to the runner's own node, which signs them and stores them.

`RunnerTransport` is what the client API finds as its transport inside a runner. A thread of its own reads the answers:
so they arrive while the main thread runs a job, and even if an `async def` job blocks its loop while it waits.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Iterable
from typing import TypeVar

from rota.client import errors
from rota.client.model import JOBS_PER_BUNDLE, Enqueue, Mode, QueueInfo, Receipt
from rota.client.process.threads import Future, OwnThread
from rota.client.transports.transport import Follower, Patience
from rota.client.wire import frames as wire
from rota.client.wire.keyring import UNSIGNED, Seal
from rota.client.wire.views import JobView

from ..channel.channel import BadFrame, BlockingEnd, ChannelClosed
from ..channel.frames import Acknowledged, Ask, AskFunction, AskMode, Question, Reply, StopAsked, Stored, ToAsker, Work
from .environment import forks

T = TypeVar("T")

ASK_BYTES_MAX = 4 * 1024 * 1024
"""Bodies in one frame; more are asked for in several."""


class RunnerTransport:
    """Can be awaited on any event loop of any thread. Patience is the node's business: it always answers, or takes
    this process with it."""

    def __init__(self, sock: socket.socket) -> None:
        self._channel: BlockingEnd[ToAsker] = BlockingEnd(sock, ToAsker)
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[Reply]] = {}
        self._reader: OwnThread | None = None
        self._broken = ""
        self.declared: set[str] = set()
        """The queues that the cluster has been told of."""
        self._to_stop: StopAsked | None = None      # the last: of a runner that does one job after another

    def wanted_gone(self, work: Work, index: int) -> bool:
        """Whether the node has asked this job of a plain function to stop. Without a thread that reads, look here."""
        if forks.forked:
            return False
        with self._lock:
            if self._reader is None and not self._broken:
                try:
                    self._take(self._channel.receive_now())
                except (ChannelClosed, BadFrame) as error:
                    self._broken = f"the way from this runner to its node is broken: {error}"
            asked = self._to_stop
        return asked is not None and (asked.key, asked.index) == (work.key, index)

    async def seal(self, patience: Patience | None = None) -> Seal:
        return Seal(UNSIGNED, "")

    @property
    def jobs_per_bundle(self) -> int:
        return JOBS_PER_BUNDLE

    async def enqueue(
        self, bundles: list[Enqueue], seen_revision: int = 0, patience: Patience | None = None
    ) -> list[Receipt | errors.RotaError]:
        """Store bundles; an answer for each, in order. The node repeats until it is definite."""
        futures = [self.ask(Ask(0, part)) for part in _parts(bundles)]
        answers: list[Receipt | errors.RotaError] = []
        for future in futures:
            stored = await asyncio.wrap_future(future)
            assert isinstance(stored, Stored)
            for answer in stored.answers:
                if answer.receipt is not None:
                    answers.append(answer.receipt)
                else:
                    assert answer.refusal is not None
                    answers.append(wire.error_of(answer.refusal))
        return answers

    async def put_function(self, digest: str, code: bytes, patience: Patience | None = None) -> None:
        await self._acknowledged(AskFunction(0, digest, code))

    async def task_mode(self, task: str, patience: Patience | None = None) -> Mode | None:
        return await self._acknowledged(AskMode(0, task))

    async def declare(self, queue: QueueInfo, patience: Patience | None = None) -> None:
        """What is declared while the app is imported, the node tells the cluster when it starts."""
        if queue.name not in self.declared:
            raise errors.InvalidJob(
                f"queue {queue.name} was declared with settings of its own inside a job, and the cluster knows nothing "
                "of them: declare it at the top of a module given to `rota node --app`"
            )

    def follow(self, bundles: Iterable[str], follower: Follower) -> None:
        for bundle in bundles:
            follower.refuse(bundle, errors.NotInJob(
                "a job cannot watch others while it runs: it would hold its place meanwhile. Wait for their results "
                "(handle.result(), handles.results()), for which it gives its place back"
            ))

    def unfollow(self, bundles: Iterable[str]) -> None:
        pass

    async def job(self, job_id: str) -> JobView:
        raise errors.NotInJob("a job cannot look up jobs: ask a node's HTTP port")

    async def post(self, path: str, body: object, kind: type[T]) -> T:
        raise errors.NotInJob("a job does not operate its cluster: make a rota.Client of its own")

    async def close(self) -> None:
        pass

    async def _acknowledged(self, question: Question) -> Mode | None:
        answer = await asyncio.wrap_future(self.ask(question))
        assert isinstance(answer, Acknowledged)
        if answer.refusal is not None:
            raise wire.error_of(answer.refusal)
        return answer.mode

    def ask(self, question: Question) -> Future[Reply]:
        """The node's answer, to be waited for on any thread."""
        if forks.forked:
            raise errors.RotaError("this process was forked off a job: enqueue in the job itself, or by a rota.Client")
        future: Future[Reply] = Future()
        with self._lock:
            if self._broken:
                raise errors.RotaError(self._broken)
            question.call = next(self._numbers)
            self._waiting[question.call] = future
            if self._reader is None:
                self._reader = OwnThread(self._read, "rota answers")
                self._reader.start()
        try:
            self._channel.send(question)
        except ChannelClosed as error:
            self._give_up(error)
        return future

    def _read(self) -> None:
        try:
            while True:
                frames = self._channel.receive()
                with self._lock:
                    answered = self._take(frames)
                for future, reply in answered:
                    if future.set_running_or_notify_cancel():
                        future.set_result(reply)
        except (ChannelClosed, BadFrame) as error:
            self._give_up(error)

    def _take(self, frames: list[ToAsker]) -> list[tuple[Future[Reply], Reply]]:
        """Under the lock. Returns whom to tell what, afterwards."""
        answered = []
        for frame in frames:
            if isinstance(frame, StopAsked):
                self._to_stop = frame
            elif (future := self._waiting.pop(frame.call, None)) is not None:
                answered.append((future, frame))
        return answered

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            self._broken = f"the way from this runner to its node is broken: {error}"
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if future.set_running_or_notify_cancel():
                future.set_exception(errors.RotaError(self._broken))


def _parts(bundles: list[Enqueue]) -> list[list[Enqueue]]:
    parts: list[list[Enqueue]] = []
    size = ASK_BYTES_MAX
    for bundle in bundles:
        if size + len(bundle.body) > ASK_BYTES_MAX:
            parts.append([])
            size = 0
        parts[-1].append(bundle)
        size += len(bundle.body)
    return parts
