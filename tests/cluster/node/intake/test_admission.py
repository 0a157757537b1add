"""Whether a node takes jobs in at present."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from rota.client.errors import LedgerUnavailable, Overloaded
from rota.client.model import Enqueue, Receipt
from rota.cluster.node.intake.admission import Admission
from rota.cluster.node.membership.reach import PATIENCE_S, Reach
from rota.cluster.node.membership.standing import Standing
from rota.cluster.state.directory import Directory

from ..bench import BUNDLE, KEYS, Bench, a_moment, play

ANSWER = [Receipt(BUNDLE, 7, 7)]


class Intake:
    async def enqueue(self, bundles: Sequence[Enqueue], seen_revision: int) -> list[Receipt]:
        return ANSWER


class Stage:
    def __init__(self, bench: Bench) -> None:
        self.standing, self.reach = Standing(), Reach(bench.clock, bench.context.events)
        self.directory = Directory(bench.ledger, KEYS)
        intake: Any = Intake()
        self.standing.context = bench.context
        self.admission = Admission(bench.context, self.standing, self.reach, self.directory, intake)


def test_it_waits_until_its_tasks_are_known_and_the_cluster_is() -> None:
    async def deed(bench: Bench) -> None:
        stage = Stage(bench)
        asked = asyncio.create_task(stage.admission.enqueue([], 0))
        await a_moment()
        stage.admission.registered.set()
        await a_moment()
        assert not asked.done()
        stage.directory.listed.set()
        assert await asked == ANSWER

    play(deed)


def test_without_its_identity_or_its_store_another_is_asked() -> None:
    async def deed(bench: Bench) -> None:
        stage = Stage(bench)
        stage.admission.registered.set()
        stage.directory.listed.set()
        stage.reach.failed(LedgerUnavailable("away"))
        await asyncio.sleep(PATIENCE_S + 1)
        with pytest.raises(Overloaded, match="away"):
            await stage.admission.enqueue([], 0)
        stage.reach.served()
        stage.standing.ended()
        with pytest.raises(Overloaded, match="not a member"):
            await stage.admission.enqueue([], 0)

    play(deed)
