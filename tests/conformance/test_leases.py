"""Leases: what hangs on them, and what becomes of it."""

from __future__ import annotations

import asyncio
import itertools
import random
import time

import pytest

from rota.client.errors import LeaseGone
from rota.cluster.ledger.ledger import Condition, Delete, Ledger, Put, Target, Txn, prefix_end

from .backends import TTL_MIN_S, OpenLedger

LONG_S = 600
_ids = itertools.count(random.SystemRandom().randrange(1, 2**40))


async def keys(ledger: Ledger, prefix: bytes) -> list[bytes]:
    page = await ledger.read(prefix, prefix_end(prefix))
    return [record.key.removeprefix(prefix) for record in page.records]


async def test_a_grant_and_its_repeat(open_ledger: OpenLedger) -> None:
    lease = next(_ids)
    async with open_ledger() as ledger:
        before = (await ledger.read(b"x")).revision
        assert await ledger.grant(LONG_S, lease) == LONG_S
        assert await ledger.grant(LONG_S, lease) == LONG_S
        assert await ledger.keep_alive(lease) == LONG_S
        await ledger.revoke(lease)
        await ledger.revoke(lease)
        assert (await ledger.read(b"x")).revision == before, "a lease without keys is no revision"


async def test_large_ids(open_ledger: OpenLedger) -> None:
    lease = 2**63 - 1 - next(_ids)
    async with open_ledger() as ledger:
        assert await ledger.grant(LONG_S, lease) == LONG_S
        assert await ledger.keep_alive(lease) == LONG_S
        await ledger.revoke(lease)


async def test_a_ttl_below_the_servers_is_raised(open_ledger: OpenLedger) -> None:
    lease = next(_ids)
    async with open_ledger() as ledger:
        assert await ledger.grant(0, lease) == TTL_MIN_S


async def test_what_is_gone(open_ledger: OpenLedger, prefix: bytes) -> None:
    lease = next(_ids)
    async with open_ledger() as ledger:
        with pytest.raises(LeaseGone):
            await ledger.keep_alive(lease)
        await ledger.revoke(lease)
        with pytest.raises(LeaseGone):
            await ledger.commit(Txn((), (Put(prefix + b"a", b""), Put(prefix + b"b", b"", lease))))
        assert await keys(ledger, prefix) == [], "a refused transaction leaves nothing"
        other_branch = Txn((), (Put(prefix + b"a", b""),), (Put(prefix + b"b", b"", lease),))
        assert (await ledger.commit(other_branch)).succeeded


async def test_revoking_deletes_its_keys_in_one_revision(open_ledger: OpenLedger, prefix: bytes) -> None:
    lease = next(_ids)
    async with open_ledger() as ledger:
        await ledger.grant(LONG_S, lease)
        await ledger.commit(Txn((), (Put(prefix + b"c", b"", lease), Put(prefix + b"free", b""))))
        more = (Put(prefix + b"a", b"", lease), Put(prefix + b"b", b"", lease))
        before = (await ledger.commit(Txn((), more))).revision
        records = (await ledger.read(prefix, prefix_end(prefix))).records
        assert [record.lease for record in records] == [lease, lease, lease, 0]
        await ledger.revoke(lease)
        page = await ledger.read(prefix, prefix_end(prefix))
        assert page.revision == before + 1
        assert [record.key for record in page.records] == [prefix + b"free"]
        async with ledger.watch(prefix, prefix_end(prefix), from_revision=before + 1) as watch:
            changes = await anext(aiter(watch))
        assert [event.record.key.removeprefix(prefix) for event in changes.events] == [b"a", b"b", b"c"]
        assert all(event.deleted and event.record.mod_revision == before + 1 for event in changes.events)


async def test_keys_leave_a_lease(open_ledger: OpenLedger, prefix: bytes) -> None:
    old, new = next(_ids), next(_ids)
    async with open_ledger() as ledger:
        await ledger.grant(LONG_S, old)
        await ledger.grant(LONG_S, new)
        names = (b"deleted", b"detached", b"moved", b"rewritten", b"stays")
        await ledger.commit(Txn((), tuple(Put(prefix + name, b"", old) for name in names)))
        await ledger.commit(
            Txn((), (Put(prefix + b"detached", b""), Put(prefix + b"moved", b"", new), Delete(prefix + b"deleted")))
        )
        await ledger.commit(Txn((), (Put(prefix + b"rewritten", b"again", old), Put(prefix + b"deleted", b""))))
        await ledger.revoke(old)
        assert await keys(ledger, prefix) == [b"deleted", b"detached", b"moved"]
        await ledger.revoke(new)
        assert await keys(ledger, prefix) == [b"deleted", b"detached"]


async def test_expiry(open_ledger: OpenLedger, prefix: bytes) -> None:
    """One lease is kept, one is not: the second one's keys go, within the TTL and a look of etcd's."""
    kept, lost = next(_ids), next(_ids)
    async with open_ledger() as ledger:
        ttl_s = await ledger.grant(1, lost)
        await ledger.grant(1, kept)
        began = time.monotonic()
        revision = (
            await ledger.commit(Txn((), (Put(prefix + b"kept", b"", kept), Put(prefix + b"lost", b"", lost))))
        ).revision

        async def keep() -> None:
            while True:
                await ledger.keep_alive(kept)
                await asyncio.sleep(ttl_s / 4)

        keeper = asyncio.create_task(keep())
        try:
            async with ledger.watch(prefix, prefix_end(prefix), from_revision=revision + 1) as watch:
                async for changes in watch:
                    if changes.events:
                        break
            took_s = time.monotonic() - began
            assert [(event.deleted, event.record.key) for event in changes.events] == [(True, prefix + b"lost")]
            assert ttl_s * 0.8 < took_s < ttl_s + 5
            assert await keys(ledger, prefix) == [b"kept"]
            with pytest.raises(LeaseGone):
                await ledger.keep_alive(lost)
            alive = Txn((Condition(prefix + b"kept", Target.LEASE, "==", kept),), ())
            assert (await ledger.commit(alive)).succeeded
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        await ledger.revoke(kept)
