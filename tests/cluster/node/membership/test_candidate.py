"""Standing for election again and again, while an identity lives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rota.client.errors import StoreRewound
from rota.cluster.events.records import BecameMaster, MastershipEnded
from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.node.membership import candidate as module
from rota.cluster.node.membership.candidate import Candidate
from rota.cluster.node.membership.standing import Standing

from ..bench import KEYS, NODE, Bench, a_moment, play

LEASE = 7


class Stage:
    def __init__(self, bench: Bench) -> None:
        self.bench, self.standing, self.events = bench, Standing(), list[Any]()
        bench.node.events.listen(self.events.append, [BecameMaster, MastershipEnded])
        self.candidate = Candidate(bench.node, bench.context, LEASE, self.standing, keep_failed_s=0.0)
        self.standing_for = asyncio.create_task(self.candidate.run(), name="lead")

    @property
    def kinds(self) -> list[type]:
        return [type(event) for event in self.events]


def act(deed: Callable[[Stage], Awaitable[None]]) -> None:
    async def main(bench: Bench) -> None:
        await bench.ledger.grant(60, LEASE)
        await bench.ledger.commit(Txn((), (Put(KEYS.node(NODE), b"{}", LEASE),)))
        stage = Stage(bench)
        await a_moment(1.0)
        await deed(stage)
        stage.standing_for.cancel()
        await asyncio.wait([stage.standing_for])

    play(main)


def test_it_is_master_until_its_key_is_gone_and_then_stands_again() -> None:
    async def deed(stage: Stage) -> None:
        assert stage.standing.is_master and stage.kinds == [BecameMaster]
        await stage.bench.delete(KEYS.candidate(LEASE))
        await a_moment(2.0)
        assert stage.kinds == [BecameMaster, MastershipEnded, BecameMaster] and stage.standing.is_master
        assert stage.events[2].fence > stage.events[0].fence

    act(deed)


def test_who_leaves_resigns_and_another_may_be_elected_at_once() -> None:
    async def deed(stage: Stage) -> None:
        stage.standing_for.cancel()
        await asyncio.wait([stage.standing_for])
        await stage.candidate.resign()
        assert not stage.standing.is_master and await stage.bench.names(KEYS.master) == []

    act(deed)


def test_a_term_that_breaks_off_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = []

    class Broken:
        def __init__(self, *arguments: Any, **more: Any) -> None: ...

        async def run(self) -> None:
            terms.append("begun")
            raise ZeroDivisionError if len(terms) < 3 else StoreRewound("it is at 7, and was at 9")

    monkeypatch.setattr(module, "Master", Broken)

    async def deed(stage: Stage) -> None:
        await a_moment(10.0)
        assert len(terms) == 3 and not stage.standing.is_master
        with pytest.raises(ExceptionGroup) as caught:      # what this process knows is void: its identities end by it
            stage.standing_for.result()
        assert caught.group_contains(StoreRewound)

    act(deed)
