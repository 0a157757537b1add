"""What runners tell their node, and what their jobs ask of it."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from rota.client.errors import EnqueueError, NotInJob
from rota.client.model import Enqueue, Mode, Outcome, Receipt, Step
from rota.worker.channel.frames import ProgressUpdate

from ..events.records import JobStarted
from .claims.memory import void
from .identities import Identities
from .life import Parts
from .running.remembering import Remembering
from .running.volatile import FIRST_KEY
from .service import Service


class RunnersSide:
    """A node's `NodeSide`."""

    def __init__(self, parts: Parts, identities: Identities, service: Service) -> None:
        self._identities = identities
        self._service = service
        self._volatile = parts.volatile
        self._shown = parts.shown
        self._progress = parts.progress
        self._seal = parts.context.seal
        self._events = parts.context.events

    def on_outcomes(self, outcomes: Collection[tuple[int, Outcome]]) -> None:
        self._progress.ended(outcomes)
        if self._volatile.held:
            for key, outcome in outcomes:
                if key >= FIRST_KEY:
                    self._volatile.on_outcome(key, outcome)
            outcomes = [item for item in outcomes if item[0] < FIRST_KEY]
        if self._identities.life is not None and outcomes:
            self._identities.life.executor.on_outcomes(outcomes)

    def on_progress(self, update: ProgressUpdate) -> None:
        self._progress.say(update)

    def on_started(self, key: int, index: int) -> None:
        if (job := self._shown.job_of(key, index)) is not None:
            self._events.emit(JobStarted(job.bundle, index, job.task, job.queue, job.attempt))

    async def enqueue(self, bundles: list[Enqueue]) -> list[Receipt | EnqueueError]:
        """The runner holds no key: the node signs for it."""
        signed = [
            msgspec.structs.replace(bundle, body=self._seal.keyring.sign_body(bundle.body, self._seal.cluster))
            for bundle in bundles
        ]
        return await self._service.enqueue(signed, 0)

    async def put_function(self, digest: str, code: bytes) -> None:
        await self._service.put_function(digest, self._seal.function(code))

    async def steps(self, key: int, index: int) -> tuple[list[Step], bool]:
        return self._remembering(key).of(key, index)

    async def remember(self, key: int, index: int, step: Step) -> None:
        await self._remembering(key).store(key, index, step)

    def _remembering(self, key: int) -> Remembering:
        if key >= FIRST_KEY:
            raise NotInJob("a job of persistence level 'none' is in no store, so nothing of it can be remembered there")
        if self._identities.life is None:
            raise void()
        return self._identities.life.executor.remembering

    async def task_mode(self, task: str) -> Mode | None:
        return await self._service.task_mode(task)
