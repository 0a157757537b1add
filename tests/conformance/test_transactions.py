"""Conditions, branches, revisions: what a transaction does."""

from __future__ import annotations

import asyncio
import operator

import pytest

from rota.client.errors import TransactionInvalid
from rota.cluster.ledger.ledger import Condition, Delete, Get, Op, Put, Record, Target, Txn, prefix_end

from .backends import OpenLedger

COMPARE = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt}


def puts(prefix: bytes, *names: bytes) -> tuple[Put, ...]:
    return tuple(Put(prefix + name, b"v" + name) for name in names)


async def test_a_transaction_is_one_revision(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        before = (await ledger.read(prefix)).revision
        result = await ledger.commit(Txn((), puts(prefix, b"a", b"b", b"c")))
        assert result.succeeded
        assert result.revision == before + 1
        assert result.answers == ((), (), ())
        page = await ledger.read(prefix, prefix_end(prefix))
        assert page.records == tuple(
            Record(prefix + name, b"v" + name, before + 1, before + 1, 1) for name in (b"a", b"b", b"c")
        )


async def test_versions_count_from_the_creation(open_ledger: OpenLedger, prefix: bytes) -> None:
    key = prefix + b"k"
    async with open_ledger() as ledger:
        created = (await ledger.commit(Txn((), (Put(key, b"1"),)))).revision
        written = (await ledger.commit(Txn((), (Put(key, b"2"),)))).revision
        assert (await ledger.read(key)).records == (Record(key, b"2", created, written, 2),)
        await ledger.commit(Txn((), (Delete(key),)))
        again = (await ledger.commit(Txn((), (Put(key, b"3"),)))).revision
        assert (await ledger.read(key)).records == (Record(key, b"3", again, again, 1),)


async def test_what_changes_nothing_keeps_the_revision(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        before = (await ledger.commit(Txn((), puts(prefix, b"a")))).revision
        absent = (Condition(prefix + b"a", Target.CREATE, "==", 0),)
        for txn in (
            Txn((), ()),
            Txn((), (Delete(prefix + b"nothing"), Delete(prefix + b"b", prefix + b"z"))),
            Txn((), (Get(prefix + b"a"),)),
            Txn(absent, puts(prefix, b"b")),
            Txn(absent, puts(prefix, b"b"), (Get(prefix + b"a"), Delete(prefix + b"nothing"))),
        ):
            assert (await ledger.commit(txn)).revision == before
        assert (await ledger.read(prefix)).revision == before


async def test_the_branch_taken_answers(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        revision = (await ledger.commit(Txn((), puts(prefix, b"a", b"b")))).revision
        txn = Txn(
            (Condition(prefix + b"a", Target.VERSION, "==", 2),),
            (Put(prefix + b"a", b"taken"),),
            (
                Get(prefix + b"a"), Delete(prefix + b"b"), Get(prefix, prefix_end(prefix), keys_only=True),
                Get(prefix + b"x"), Get(prefix, prefix_end(prefix), limit=1),
            ),
        )
        result = await ledger.commit(txn)
        a = Record(prefix + b"a", b"va", revision, revision, 1)
        bare = Record(prefix + b"a", b"", revision, revision, 1)
        assert not result.succeeded
        assert result.revision == revision + 1
        assert result.answers == ((a,), (), (bare,), (), (a,))


async def test_a_get_sees_the_writes_before_it(open_ledger: OpenLedger, prefix: bytes) -> None:
    key = prefix + b"k"
    async with open_ledger() as ledger:
        revision = (await ledger.commit(Txn((), (Put(key, b"1"),)))).revision
        result = await ledger.commit(Txn((), (Get(key), Put(key, b"2"), Get(key))))
        assert result.answers == (
            (Record(key, b"1", revision, revision, 1),), (), (Record(key, b"2", revision, revision + 1, 2),),
        )


async def test_conditions_of_every_kind(open_ledger: OpenLedger, prefix: bytes) -> None:
    key, absent = prefix + b"k", prefix + b"absent"
    async with open_ledger() as ledger:
        await ledger.grant(600, 1_000_007)
        created = (await ledger.commit(Txn((), (Put(key, b"1"),)))).revision
        await ledger.commit(Txn((), (Put(key, b"m", 1_000_007),)))
        stored: dict[Target, int | bytes] = {
            Target.CREATE: created, Target.MOD: created + 1, Target.VERSION: 2, Target.LEASE: 1_000_007,
            Target.VALUE: b"m",
        }
        for target, actual in stored.items():
            for is_, compare in COMPARE.items():
                operands = (b"", b"a", b"m", b"mm", b"z") if isinstance(actual, bytes) else (
                    0, actual - 1, actual, actual + 1
                )
                for operand in operands:
                    held = await ledger.commit(Txn((Condition(key, target, is_, operand),), ()))
                    assert held.succeeded is compare(actual, operand), (target, is_, operand)
                    held = await ledger.commit(Txn((Condition(absent, target, is_, operand),), ()))
                    expected = target is not Target.VALUE and compare(0, operand)
                    assert held.succeeded is expected, ("absent", target, is_, operand)
        await ledger.revoke(1_000_007)


async def test_conditions_of_a_range_hold_for_each_key(open_ledger: OpenLedger, prefix: bytes) -> None:
    everything = prefix_end(prefix)
    async with open_ledger() as ledger:
        first = (await ledger.commit(Txn((), puts(prefix, b"a", b"b")))).revision
        await ledger.commit(Txn((), puts(prefix, b"b", b"c")))

        async def holds(condition: Condition) -> bool:
            return (await ledger.commit(Txn((condition,), ()))).succeeded

        assert await holds(Condition(prefix, Target.CREATE, ">", first - 1, everything))
        assert not await holds(Condition(prefix, Target.CREATE, "==", first, everything))
        assert await holds(Condition(prefix, Target.CREATE, "==", first, prefix + b"c"))
        assert not await holds(Condition(prefix, Target.MOD, "==", first, prefix + b"c"))
        assert await holds(Condition(prefix, Target.VALUE, ">", b"v", everything))
        assert not await holds(Condition(prefix, Target.VALUE, "!=", b"vb", everything))
        empty = prefix + b"x"
        assert await holds(Condition(empty, Target.CREATE, "==", 0, everything))
        assert not await holds(Condition(empty, Target.CREATE, ">", 0, everything))
        assert not await holds(Condition(empty, Target.VALUE, "!=", b"q", everything))
        assert await holds(Condition(everything, Target.VERSION, "==", 0, prefix)), "an inverted range is empty"


async def test_deleting_a_range(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        await ledger.commit(Txn((), puts(prefix, b"a", b"b", b"c", b"d")))
        await ledger.commit(Txn((), (Delete(prefix + b"b", prefix + b"d"),)))
        left = await ledger.read(prefix, prefix_end(prefix))
        assert [record.key for record in left.records] == [prefix + b"a", prefix + b"d"]
        await ledger.commit(Txn((), (Delete(prefix + b"d", prefix + b"a"),)))
        assert len((await ledger.read(prefix, prefix_end(prefix))).records) == 2


@pytest.mark.parametrize(
    "ops",
    [
        (Put(b"a", b"1"), Put(b"a", b"2")),
        (Put(b"a", b"1"), Put(b"a", b"1")),
        (Put(b"a", b"1"), Delete(b"a")),
        (Delete(b"a"), Put(b"a", b"1")),
        (Put(b"b", b"1"), Delete(b"a", b"c")),
    ],
)
async def test_a_key_is_written_once(open_ledger: OpenLedger, prefix: bytes, ops: tuple[Op, ...]) -> None:
    inside = tuple(
        Put(prefix + op.key, op.value) if isinstance(op, Put)
        else Delete(prefix + op.key, prefix + op.range_end if op.range_end else b"")
        for op in ops if not isinstance(op, Get)
    )
    async with open_ledger() as ledger:
        before = (await ledger.read(prefix)).revision
        for txn in (Txn((), inside), Txn((), puts(prefix, b"q"), inside)):
            with pytest.raises(TransactionInvalid):
                await ledger.commit(txn)
        after = await ledger.read(prefix, prefix_end(prefix))
        assert (after.records, after.revision) == ((), before)


async def test_what_may_be_repeated(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        await ledger.commit(Txn((), puts(prefix, b"a", b"b")))
        before = (await ledger.read(prefix)).revision
        key = prefix + b"a"
        assert (await ledger.commit(Txn((), (Delete(key), Delete(key, prefix + b"c"))))).revision == before + 1
        both = Txn((Condition(key, Target.CREATE, "==", 0),), (Put(key, b"1"), Get(key)), (Put(key, b"2"), Get(key)))
        assert (await ledger.commit(both)).succeeded
        assert not (await ledger.commit(both)).succeeded
        assert (await ledger.read(key)).records[0].value == b"2"


async def test_a_key_cannot_be_empty(open_ledger: OpenLedger) -> None:
    async with open_ledger() as ledger:
        bad: tuple[Txn, ...] = (
            Txn((), (Put(b"", b"v"),)),
            Txn((), (), (Delete(b"", b"\0"),)),
            Txn((), (Get(b"", b"\0"),)),
            Txn((Condition(b"", Target.CREATE, "==", 0),), ()),
        )
        for txn in bad:
            with pytest.raises(TransactionInvalid):
                await ledger.commit(txn)


async def test_a_guarded_write_applies_once(open_ledger: OpenLedger, prefix: bytes) -> None:
    key = prefix + b"k"
    once = Txn((Condition(key, Target.CREATE, "==", 0),), (Put(key, b"1"),), (Get(key),))
    async with open_ledger() as ledger:
        results = await asyncio.gather(*(ledger.commit(once) for _ in range(20)))
        winners = [result for result in results if result.succeeded]
        assert len(winners) == 1
        found = {result.answers[0][0].mod_revision for result in results if not result.succeeded}
        assert found == {winners[0].revision}
