"""The node's answers to what jobs ask for: enqueue, take in code, say how a task runs."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from rota.client.errors import EnqueueError, NotInJob, RotaError
from rota.client.model import Receipt
from rota.client.wire import frames as wire

from ..channel.frames import (
    Acknowledged,
    Answer,
    Ask,
    AskFunction,
    AskMode,
    AskSteps,
    Question,
    Remembered,
    Reply,
    Stored,
)
from .interface import NodeSide

log = logging.getLogger(__name__)


class Asker(Protocol):
    number: int

    def answer(self, reply: Reply) -> None: ...
    def has(self, key: int, index: int) -> bool: ...


class Questions:
    """Each question is a task of its own; whatever goes wrong is told to the job that asked."""

    def __init__(self, node: NodeSide) -> None:
        self._node = node
        self._answers: set[asyncio.Task[None]] = set()

    def asked(self, asker: Asker, questions: list[Question]) -> float:
        for question in questions:
            answer = asyncio.get_running_loop().create_task(
                self._answer(asker, question), name=f"runner-{asker.number}-asks"
            )
            self._answers.add(answer)
            answer.add_done_callback(self._answers.discard)
        return 0.0

    def close(self) -> None:
        for answer in self._answers:
            answer.cancel()

    async def _answer(self, asker: Asker, question: Question) -> None:
        try:
            asker.answer(await self._reply(asker, question))
        except Exception as error:
            if not isinstance(error, RotaError):
                log.exception("what a job asked for failed")
            refusal = wire.refusal(error)
            if isinstance(question, Ask):
                asker.answer(Stored(question.call, [Answer(refusal=refusal) for _ in question.bundles]))
            elif isinstance(question, AskSteps):
                asker.answer(Remembered(question.call, refusal=refusal))
            else:
                asker.answer(Acknowledged(question.call, refusal=refusal))

    async def _reply(self, asker: Asker, question: Question) -> Reply:
        if isinstance(question, Ask):
            stored = await self._node.enqueue(question.bundles)
            return Stored(question.call, [_answer_of(entry) for entry in stored])
        if isinstance(question, AskFunction):
            await self._node.put_function(question.digest, question.code)
            return Acknowledged(question.call)
        if isinstance(question, AskMode):
            return Acknowledged(question.call, await self._node.task_mode(question.task))
        if not asker.has(question.key, question.index):
            raise NotInJob("that job does not run here")
        if isinstance(question, AskSteps):
            return Remembered(question.call, *await self._node.steps(question.key, question.index))
        await self._node.remember(question.key, question.index, question.step)
        return Acknowledged(question.call)


def _answer_of(entry: Receipt | EnqueueError) -> Answer:
    return Answer(receipt=entry) if isinstance(entry, Receipt) else Answer(refusal=wire.refusal(entry))
