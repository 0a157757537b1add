"""A job enqueues jobs: over its runner's channel, to the runner's own node, which signs them and stores them.

`RunnerTransport` is what the client API finds as its transport inside a runner. It can be awaited on any event loop of
any thread of the runner.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TypeVar

from rota.client import errors, wire
from rota.client.codec import UNSIGNED, Seal
from rota.client.model import Enqueue, Mode, Receipt
from rota.client.transport import Follower
from rota.client.views import JobView

from .frames import Ask, AskFunction, AskMode, Question, Stored, Told

ASK_BYTES_MAX = 4 * 1024 * 1024
"""Bodies in one frame; more are asked for in several."""

T = TypeVar("T")


class RunnerTransport:
    """`send` must be callable from any thread. Deadlines are the node's business: it always answers, or the runner
    dies with it."""

    def __init__(self, send: Callable[[Question], None]) -> None:
        self._send = send
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[Stored | Told]] = {}
        self._pid = os.getpid()

    async def seal(self, deadline: float = 0.0) -> Seal:
        return Seal(UNSIGNED, "")

    async def enqueue(
        self, bundles: list[Enqueue], seen_revision: int = 0, deadline: float = 0.0
    ) -> list[Receipt | errors.RotaError]:
        """Store bundles; an answer for each, in order. The node repeats until it is definite."""
        futures = [self._ask(Ask(0, part), Stored) for part in _parts(bundles)]
        answers: list[Receipt | errors.RotaError] = []
        for future in futures:
            for answer in (await asyncio.wrap_future(future)).answers:
                if answer.receipt is not None:
                    answers.append(answer.receipt)
                else:
                    assert answer.refusal is not None
                    answers.append(wire.error_of(answer.refusal))
        return answers

    async def put_function(self, digest: str, code: bytes, deadline: float = 0.0) -> None:
        await self._told(AskFunction(0, digest, code))

    async def task_mode(self, task: str, deadline: float = 0.0) -> Mode | None:
        return await self._told(AskMode(0, task))

    def follow(self, bundles: Iterable[str], follower: Follower) -> None:
        for bundle in bundles:
            follower.refuse(bundle, errors.RotaError(
                "a job cannot wait for the result of another one: it would hold its place while it waits. "
                "Let that job enqueue what comes next."
            ))

    def unfollow(self, bundles: Iterable[str]) -> None:
        pass

    async def job(self, job_id: str) -> JobView:
        raise errors.RotaError("a job cannot look up jobs: ask a node's HTTP port")

    async def close(self) -> None:
        pass

    def answered(self, answer: Stored | Told) -> None:
        """The runner has received an answer."""
        future = self._waiting.pop(answer.call, None)
        if future is not None and future.set_running_or_notify_cancel():
            future.set_result(answer)

    async def _told(self, question: Question) -> Mode | None:
        told = await asyncio.wrap_future(self._ask(question, Told))
        if told.refusal is not None:
            raise wire.error_of(told.refusal)
        return told.mode

    def _ask(self, question: Question, answer: type[T]) -> Future[T]:
        if os.getpid() != self._pid:
            raise errors.RotaError("this process was forked off a job: enqueue in the job itself, or by a Client")
        question.call, future = next(self._numbers), Future[T]()
        self._waiting[question.call] = future       # type: ignore[assignment]  # each question has one type of answer
        self._send(question)
        return future


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
