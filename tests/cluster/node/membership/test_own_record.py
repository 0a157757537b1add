"""A node's own record: it is put right where others wrote over it, and its end is the identity's end."""

from __future__ import annotations

import asyncio

import pytest

from rota.cluster.events.records import OverwriteMended
from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.node.membership.membership import Identity, IdentityLost
from rota.cluster.node.membership.own_record import OwnRecord
from rota.cluster.state.records import Member, decode, encode

from ..bench import KEYS, NODE, Bench, a_moment, play

MEMBER = Member("here", ["*"], {}, {}, "3.11", "0", 0.0)
LEASE = 7


async def watched(bench: Bench) -> tuple[OwnRecord, asyncio.Task[None]]:
    await bench.ledger.grant(1_000, LEASE)
    await bench.ledger.commit(Txn((), (Put(KEYS.node(NODE), encode(MEMBER), LEASE),)))
    revision = (await bench.record(KEYS.node(NODE))).create_revision
    record = OwnRecord(bench.context, Identity(NODE, LEASE, 9, KEYS.node(NODE), revision), MEMBER)
    task = asyncio.create_task(record.watch(), name="watch")
    await a_moment()
    return record, task


async def shown(bench: Bench) -> Member:
    member = decode(Member, (await bench.record(KEYS.node(NODE))).value)
    assert member is not None
    return member


def test_what_it_says_is_changed_and_what_others_say_is_put_right() -> None:
    async def deed(bench: Bench) -> None:
        mended: list[object] = []
        bench.node.events.listen(mended.append, [OverwriteMended])
        record, task = await watched(bench)
        await record.show(state="draining")
        assert (await shown(bench)).state == "draining" and not mended
        await bench.ledger.commit(Txn((), (Put(KEYS.node(NODE), encode(MEMBER), LEASE),)))
        await a_moment()
        assert (await shown(bench)).state == "draining" and len(mended) == 1 and not task.done()
        task.cancel()

    play(deed)


@pytest.mark.parametrize("leaves", [False, True])
def test_without_it_there_is_no_identity(leaves: bool) -> None:
    async def deed(bench: Bench) -> None:
        record, task = await watched(bench)
        if leaves:
            record.leave()
        await bench.delete(KEYS.node(NODE))
        await asyncio.wait([task])
        assert isinstance(task.exception(), IdentityLost) is not leaves

    play(deed)
