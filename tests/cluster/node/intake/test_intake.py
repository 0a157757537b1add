"""An enqueue is acknowledged when body, token and receipt are stored, in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from rota.client.errors import (
    EnqueueError,
    InvalidJob,
    LedgerUnavailable,
    NoSpace,
    Overloaded,
    TransactionInvalid,
    UnknownTask,
)
from rota.client.model import Enqueue, Receipt, Terms
from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.node.bodies.cache import BodyCache
from rota.cluster.node.intake.intake import BACKLOG_MAX, SEEN_MAX, Intake
from rota.cluster.node.membership.membership import Identity
from rota.cluster.node.membership.own_record import OwnRecord
from rota.cluster.state.directory import Directory
from rota.cluster.state.records import Member, TaskRecord, Token, decode, encode

from ..bench import BUNDLE, KEYS, NODE, OTHER, Bench, a_moment, body, play

GOOD = Enqueue(BUNDLE, "m:f", "q", 2, "async", body())
MEMBER = Member("", ["*"], {"m:f": "async"}, {"async": 10}, "3.11", "0", 0.0)


class NeverIdle:
    def is_idle(self) -> bool:
        return False

    def expect(self, bundle: str) -> None:
        raise AssertionError(bundle)

    def expect_no_more(self, bundle: str) -> None:
        raise AssertionError(bundle)


class Stage:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.volatile: list[str] = []
        directory = Directory(bench.ledger, KEYS)
        identity = Identity(NODE, 0, 10, KEYS.node(NODE), 0)
        self.intake = Intake(
            bench.context, directory, bench.context.buckets.of(120.0), BodyCache(), volatile=self._volatile,
            begin=lambda *claim: None, place=NeverIdle(), record=OwnRecord(bench.context, identity, MEMBER),
        )

    def _volatile(self, bundle: Enqueue, body: Any, error: EnqueueError | None) -> Receipt:
        self.volatile.append(bundle.bundle)
        return Receipt(bundle.bundle, 0, 0, "none")

    async def enqueue(self, *bundles: Enqueue, seen_revision: int = 0) -> list[Receipt | EnqueueError]:
        return await self.intake.enqueue(list(bundles), seen_revision)


def act(deed: Callable[[Stage], Awaitable[None]]) -> None:
    async def main(bench: Bench) -> None:
        await bench.ledger.commit(Txn((), (Put(KEYS.task("m:f"), encode(TaskRecord("async"))),)))
        await deed(Stage(bench))

    play(main)


def test_what_is_acknowledged_is_stored_under_one_revision() -> None:
    async def deed(stage: Stage) -> None:
        (receipt,) = await stage.enqueue(GOOD, seen_revision=40)
        assert isinstance(receipt, Receipt) and receipt.order == 40 and stage.intake.taken == 2
        stored = [await stage.bench.record(key) for key in (
            KEYS.job("q", 0, 40, BUNDLE), KEYS.body(BUNDLE), KEYS.receipt(BUNDLE)
        )]
        assert {record.mod_revision for record in stored} == {receipt.revision}
        token = decode(Token, stored[0].value)
        assert token is not None and (token.task, token.count) == ("m:f", 2)
        assert stored[1].value == GOOD.body and stored[2].lease

    act(deed)


def test_a_repeat_gets_the_receipt_of_the_first_and_is_not_stored_again() -> None:
    async def deed(stage: Stage) -> None:
        (first,) = await stage.enqueue(GOOD)
        (again,) = await stage.enqueue(GOOD, seen_revision=90)
        assert isinstance(first, Receipt) and isinstance(again, Receipt)
        assert (again.revision, again.order) == (first.revision, first.order)
        assert len(await stage.bench.names(KEYS.jobs)) == 1 and stage.intake.taken == 2

    act(deed)


def test_each_of_several_has_an_answer_of_its_own() -> None:
    async def deed(stage: Stage) -> None:
        unknown = replace(GOOD, bundle=OTHER, task="n:g", body=body(OTHER, task="n:g"))
        volatile = replace(GOOD, bundle=OTHER, level="none", body=body(OTHER))
        answers = await stage.enqueue(unknown, GOOD, volatile)
        assert [type(answer) for answer in answers] == [UnknownTask, Receipt, Receipt]
        assert stage.volatile == [OTHER] and len(await stage.bench.names(KEYS.jobs)) == 1

    act(deed)


def test_what_must_wait_lies_elsewhere() -> None:
    async def deed(stage: Stage) -> None:
        await stage.enqueue(replace(GOOD, delay_s=60.0))
        assert await stage.bench.names(KEYS.jobs) == [] and len(await stage.bench.names(KEYS.scheduled)) == 1

    act(deed)


def test_one_of_a_key_is_stored_and_the_others_hear_of_it() -> None:
    async def deed(stage: Stage) -> None:
        one = replace(GOOD, count=1, body=body(count=1), terms=Terms(unique="k"))
        other = replace(one, bundle=OTHER, body=body(OTHER, 1))
        answers = await asyncio.gather(stage.enqueue(one), stage.enqueue(other))
        assert {receipt.bundle for (receipt,) in answers if isinstance(receipt, Receipt)} == {BUNDLE}
        assert len(await stage.bench.names(KEYS.jobs)) == 1

    act(deed)


@pytest.mark.parametrize(("error", "kind", "words"), [
    (NoSpace("alarm"), Overloaded, "NOSPACE"), (TransactionInvalid("too many operations"), InvalidJob, "refused"),
    (LedgerUnavailable("gone away"), Overloaded, "does not answer: gone away"),
])
def test_what_the_store_says_is_an_answer(
    error: Exception, kind: type[EnqueueError], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deed(stage: Stage) -> None:
        async def refuses(*arguments: Any, **more: Any) -> Any:
            raise error

        monkeypatch.setattr(stage.bench.ledger, "grant", refuses)       # of the lease that receipts are on
        (answer,) = await stage.enqueue(GOOD)
        assert type(answer) is kind and words in str(answer) and await stage.bench.names(KEYS.jobs) == []

    act(deed)


def test_where_there_is_no_room_nothing_is_looked_at() -> None:
    async def deed(stage: Stage) -> None:
        stage.intake.nearly_full = "the store is nearly full"
        (answer,) = await stage.enqueue(GOOD)
        assert isinstance(answer, Overloaded) and "nearly full" in str(answer)
        stage.intake.nearly_full = None
        (answer,) = await stage.enqueue(GOOD, seen_revision=SEEN_MAX)
        assert isinstance(answer, InvalidJob) and "no revision of a store" in str(answer)
        assert BACKLOG_MAX > stage.bench.commits.backlog == 0

    act(deed)


def test_who_has_lost_its_membership_stores_nothing() -> None:
    async def deed(stage: Stage) -> None:
        await stage.bench.delete(KEYS.node(NODE))
        await a_moment()
        (answer,) = await stage.enqueue(GOOD)
        assert isinstance(answer, Overloaded) and "lost its membership" in str(answer)
        assert await stage.bench.names(KEYS.jobs) == []

    act(deed)
