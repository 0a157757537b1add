"""What runners tell their node."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from rota.client.errors import NotInJob, RotaError
from rota.client.model import Enqueue, Outcome
from rota.client.wire.keyring import Keyring, Seal
from rota.cluster.events.hub import Events
from rota.cluster.events.records import JobStarted
from rota.cluster.node.claims.held import LocalJob
from rota.cluster.node.runners_side import RunnersSide
from rota.cluster.node.running.volatile import FIRST_KEY

from .bench import BUNDLE, body

OK = Outcome(0, "ok")


class Stage:
    def __init__(self) -> None:
        self.progress, self.volatile, self.stored = list[object](), list[object](), list[object]()
        self.enqueued: list[Enqueue] = []
        self.seal, self.events = Seal(Keyring({"k": b"x" * 32}), "c"), Events()
        executor = SimpleNamespace(on_outcomes=self.stored.extend, remembering=SimpleNamespace(of=self._steps))
        self.identities: Any = SimpleNamespace(life=SimpleNamespace(executor=executor))
        parts: Any = SimpleNamespace(
            volatile=SimpleNamespace(held=True, on_outcome=lambda key, outcome: self.volatile.append((key, outcome))),
            shown=SimpleNamespace(job_of=self._job_of),
            progress=SimpleNamespace(ended=self.progress.extend, say=self.progress.append),
            context=SimpleNamespace(seal=self.seal, events=self.events),
        )
        service: Any = SimpleNamespace(enqueue=self._enqueue)
        self.side = RunnersSide(parts, self.identities, service)

    def _job_of(self, key: int, index: int) -> LocalJob | None:
        return LocalJob(BUNDLE, index, "m:f", "q", 2, False) if key else None

    def _steps(self, key: int, index: int) -> tuple[list[object], bool]:
        return [key, index], False

    async def _enqueue(self, bundles: list[Enqueue], seen_revision: int) -> list[object]:
        self.enqueued += bundles
        return []


def test_outcomes_go_to_where_their_jobs_lie() -> None:
    stage = Stage()
    stage.side.on_outcomes([(1, OK), (FIRST_KEY, OK)])
    assert stage.stored == [(1, OK)] and stage.volatile == [(FIRST_KEY, OK)] and len(stage.progress) == 2
    stage.identities.life = None
    stage.side.on_outcomes([(2, OK)])
    assert stage.stored == [(1, OK)]                # it is another's by now


def test_a_start_is_told_of_what_lies_here() -> None:
    stage, seen = Stage(), list[object]()
    stage.events.listen(seen.append, [JobStarted])
    stage.side.on_started(1, 0)
    stage.side.on_started(0, 0)
    assert seen == [JobStarted(BUNDLE, 0, "m:f", "q", 2)]


def test_the_node_signs_what_a_job_enqueues() -> None:
    stage = Stage()
    asyncio.run(stage.side.enqueue([Enqueue(BUNDLE, "m:f", "q", 2, "async", body())]))
    header, payloads = stage.seal.keyring.verify(stage.enqueued[0].body, "c")
    assert header.bundle == BUNDLE and payloads == [b"x", b"x"]


def test_what_is_in_no_store_remembers_nothing() -> None:
    stage = Stage()
    with pytest.raises(NotInJob, match="'none'"):
        asyncio.run(stage.side.steps(FIRST_KEY, 0))
    stage.identities.life = None
    with pytest.raises(RotaError):
        asyncio.run(stage.side.steps(1, 0))
