"""The ledger when the network between it and etcd fails. Two proxies in front of one etcd stand for two members."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rota.client import errors
from rota.cluster.boot.embedded import EmbeddedEtcd
from rota.cluster.ledger import watching
from rota.cluster.ledger.etcd import EtcdConfig, EtcdLedger
from rota.cluster.ledger.ledger import Condition, Event, Put, Target, Txn, Watch, prefix_end

from ...proxy import Mode, Proxy


@asynccontextmanager
async def ledger_through(*proxies: Proxy, commit_timeout_s: float = 9.0) -> AsyncIterator[EtcdLedger]:
    config = EtcdConfig(
        tuple(proxy.endpoint for proxy in proxies),
        connect_timeout_s=0.5,
        read_try_s=0.3,
        read_timeout_s=3.0,
        commit_timeout_s=commit_timeout_s,
        keep_alive_try_s=0.3,
        progress_interval_s=0.1,
        shuffle=False,
    )
    async with EtcdLedger(config) as ledger:
        yield ledger


@asynccontextmanager
async def direct_to(etcd: EmbeddedEtcd) -> AsyncIterator[EtcdLedger]:
    async with EtcdLedger(EtcdConfig((etcd.endpoint,))) as ledger:
        yield ledger


@asynccontextmanager
async def two_ways(etcd: EmbeddedEtcd) -> AsyncIterator[tuple[Proxy, Proxy]]:
    async with Proxy(etcd.client_port) as first, Proxy(etcd.client_port) as second:
        yield first, second


def create(key: bytes, value: bytes = b"") -> Txn:
    return Txn((Condition(key, Target.CREATE, "==", 0),), (Put(key, value),))


async def commit_soon(ledger: EtcdLedger, txn: Txn, limit_s: float = 10.0) -> bool:
    """Repeat until it is definite."""
    async with asyncio.timeout(limit_s):
        while True:
            try:
                return (await ledger.commit(txn)).succeeded
            except (errors.LedgerUnavailable, errors.WriteUnknown):
                await asyncio.sleep(0.05)


async def collect(watch: Watch, count: int) -> list[Event]:
    events: list[Event] = []
    async for changes in watch:
        assert all(event.record.mod_revision <= changes.revision for event in changes.events)
        events += changes.events
        if len(events) >= count:
            return events
    raise AssertionError("a watch has no end")


async def test_nobody_listens(etcd: EmbeddedEtcd, cluster_name: str) -> None:
    """A refused connection is proof that nothing was written, whatever was connected before."""
    key = f"/{cluster_name}".encode()
    async with Proxy(etcd.client_port) as proxy, ledger_through(proxy) as ledger:
        await ledger.read(key)
        await proxy.set(Mode.REFUSE)
        await asyncio.sleep(0.05)       # until the reset has arrived; before, the outcome would be unknown
        for _ in range(3):
            with pytest.raises(errors.LedgerUnavailable):
                await ledger.commit(create(key))
        with pytest.raises(errors.LedgerUnavailable):
            await ledger.keep_alive(1)
        await proxy.set(Mode.PASS)
        assert await commit_soon(ledger, create(key))


async def test_a_write_whose_answer_is_lost(etcd: EmbeddedEtcd, cluster_name: str) -> None:
    key = f"/{cluster_name}".encode()
    async with Proxy(etcd.client_port) as proxy, ledger_through(proxy) as ledger, direct_to(etcd) as direct:
        start = (await ledger.read(key)).revision + 1
        async with direct.watch(key, from_revision=start) as watch:
            await proxy.set(Mode.MUTE)
            write = asyncio.ensure_future(ledger.commit(create(key)))
            await collect(watch, 1)
        await proxy.set(Mode.RESET)
        with pytest.raises(errors.WriteUnknown):
            await write
        await proxy.set(Mode.PASS)
        assert not await commit_soon(ledger, create(key))       # the repeat finds it applied


async def test_a_write_into_a_black_hole(etcd: EmbeddedEtcd, cluster_name: str) -> None:
    """Its fate is unknown: it may still apply after a read showed it absent. Repeated, it applies once."""
    key = f"/{cluster_name}".encode()
    async with (
        Proxy(etcd.client_port) as proxy,
        ledger_through(proxy, commit_timeout_s=0.3) as ledger,
        direct_to(etcd) as direct,
    ):
        await ledger.read(key)
        await proxy.set(Mode.BLACKHOLE)
        with pytest.raises(errors.WriteUnknown):
            await ledger.commit(create(key))
        assert not (await direct.read(key)).records
        await proxy.set(Mode.PASS)
        await commit_soon(ledger, create(key))
        assert [record.version for record in (await direct.read(key)).records] == [1]


async def test_reads_go_round_a_black_hole(etcd: EmbeddedEtcd, cluster_name: str) -> None:
    key = f"/{cluster_name}".encode()
    async with two_ways(etcd) as (first, second), ledger_through(first, second) as ledger:
        await ledger.commit(create(key))
        assert second.accepted == 0
        await first.set(Mode.BLACKHOLE)
        assert (await ledger.read(key)).records
        assert second.accepted == 1


async def test_writes_and_leases_go_round_a_dead_endpoint(etcd: EmbeddedEtcd, cluster_name: str) -> None:
    key = f"/{cluster_name}".encode()
    lease = hash(cluster_name) & (2**62 - 1)
    async with two_ways(etcd) as (first, second), ledger_through(first, second) as ledger:
        await ledger.grant(5, lease)
        await first.set(Mode.REFUSE)
        await asyncio.sleep(0.05)
        assert (await ledger.commit(create(key))).succeeded
        await first.set(Mode.PASS)
        await second.set(Mode.BLACKHOLE)
        assert await ledger.keep_alive(lease) == 5


async def test_a_new_ledger_goes_round_a_black_hole(etcd: EmbeddedEtcd, cluster_name: str) -> None:
    async with two_ways(etcd) as (first, second):
        await first.set(Mode.BLACKHOLE)
        async with ledger_through(first, second) as ledger:
            assert (await ledger.commit(create(f"/{cluster_name}".encode()))).succeeded


async def test_a_stalled_watch_moves_and_frees_what_waits(etcd: EmbeddedEtcd, cluster_name: str) -> None:
    """The watch notices the silence of an endpoint; writes that hang there end at once, not at their deadline."""
    root = f"/{cluster_name}/".encode()
    async with two_ways(etcd) as (first, second), ledger_through(first, second) as ledger:
        start = (await ledger.commit(create(root + b"1"))).revision
        async with ledger.watch(root, prefix_end(root), from_revision=start) as watch:
            assert len(await collect(watch, 1)) == 1
            await first.set(Mode.BLACKHOLE)
            began = time.monotonic()
            with pytest.raises(errors.WriteUnknown):
                await ledger.commit(create(root + b"2"))
            assert time.monotonic() - began < 3
            await commit_soon(ledger, create(root + b"2"))
            assert [event.record.key for event in await collect(watch, 1)] == [root + b"2"]


async def test_a_write_leaves_a_silent_endpoint(etcd: EmbeddedEtcd, cluster_name: str) -> None:
    """Also where no watch would notice the silence."""
    key = f"/{cluster_name}".encode()
    async with two_ways(etcd) as (first, second), ledger_through(first, second) as ledger:
        await ledger.read(key)
        await first.set(Mode.BLACKHOLE)
        began = time.monotonic()
        with pytest.raises(errors.WriteUnknown):
            await ledger.commit(create(key))
        assert time.monotonic() - began < 3
        assert await commit_soon(ledger, create(key))


async def test_a_watch_survives_cuts(etcd: EmbeddedEtcd, cluster_name: str) -> None:
    """Every event once and in order, however often the stream is cut."""
    root = f"/{cluster_name}/".encode()
    total = 400
    async with Proxy(etcd.client_port) as proxy, ledger_through(proxy) as ledger, direct_to(etcd) as direct:
        start = (await direct.read(root)).revision + 1

        async def write() -> None:
            for i in range(total):
                await direct.commit(Txn((), (Put(root + b"a", b"%d" % i), Put(root + b"b", b"%d" % i))))
                if i % 100 == 50:
                    before = proxy.accepted
                    proxy.cut()
                    while proxy.accepted == before:     # noqa: ASYNC110 - it comes back
                        await asyncio.sleep(0.01)

        async with ledger.watch(root, prefix_end(root), from_revision=start) as watch:
            writer = asyncio.ensure_future(write())
            events = await collect(watch, 2 * total)
            await writer
    assert [int(event.record.value) for event in events] == [i // 2 for i in range(2 * total)]
    revisions = [event.record.mod_revision for event in events]
    assert revisions == sorted(revisions)
    assert proxy.accepted > 2


async def test_compaction_under_a_stalled_watch(etcd: EmbeddedEtcd, cluster_name: str) -> None:
    root = f"/{cluster_name}/".encode()
    async with Proxy(etcd.client_port) as proxy, ledger_through(proxy) as ledger, direct_to(etcd) as direct:
        start = (await ledger.commit(create(root + b"a"))).revision
        async with ledger.watch(root, prefix_end(root), from_revision=start) as watch:
            await collect(watch, 1)
            await proxy.set(Mode.BLACKHOLE)
            for i in range(3):
                last = await direct.commit(create(root + b"%d" % i))
            await direct.compact(last.revision)
            await proxy.set(Mode.RESET)
            await proxy.set(Mode.PASS)
            with pytest.raises(errors.Compacted) as refusal:
                await collect(watch, 4)
            assert refusal.value.revision == last.revision
            with pytest.raises(errors.Compacted):       # and again, for who asks again
                await collect(watch, 1)


async def test_a_watch_catches_up_on_more_than_fits_one_message(etcd: EmbeddedEtcd, cluster_name: str) -> None:
    """Fragments are put together: events of one revision never come apart."""
    root = f"/{cluster_name}/".encode()
    async with direct_to(etcd) as ledger:
        start = (await ledger.read(root)).revision + 1
        for _ in range(8):
            await ledger.commit(Txn((), tuple(Put(root + b"%d" % j, bytes(100_000)) for j in range(12))))
        async with ledger.watch(root, prefix_end(root), from_revision=start) as watch:
            revisions: dict[int, int] = {}
            async for changes in watch:
                for revision in {event.record.mod_revision for event in changes.events}:
                    assert revision not in revisions
                    revisions[revision] = sum(event.record.mod_revision == revision for event in changes.events)
                if len(revisions) == 8:
                    break
    assert set(revisions.values()) == {12}


async def test_a_backlog_has_a_limit(
    etcd: EmbeddedEtcd, cluster_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond it the stream is left unread, and goes on when there is room again."""
    monkeypatch.setattr(watching, "BACKLOG_EVENTS_MAX", 20)
    root = f"/{cluster_name}/".encode()
    async with direct_to(etcd) as ledger:
        start = (await ledger.read(root)).revision + 1
        async with ledger.watch(root, prefix_end(root), from_revision=start) as watch:
            for i in range(60):
                await ledger.commit(create(root + b"%03d" % i))
            while not watch._paused:    # noqa: ASYNC110 - until it reads no further
                await asyncio.sleep(0.01)
            first = await anext(aiter(watch))
            assert len(first.events) > 20
            rest = await collect(watch, 60 - len(first.events)) if len(first.events) < 60 else []
    keys = [event.record.key for event in (*first.events, *rest)]
    assert keys == [root + b"%03d" % i for i in range(60)]


async def test_a_slow_consumer_gets_everything_at_once(etcd: EmbeddedEtcd, cluster_name: str) -> None:
    root = f"/{cluster_name}/".encode()
    async with direct_to(etcd) as ledger:
        start = (await ledger.read(root)).revision + 1
        async with ledger.watch(root, prefix_end(root), from_revision=start) as watch:
            for i in range(50):
                last = await ledger.commit(create(root + b"%d" % i))
            reached, batches, events = 0, 0, 0
            while reached < last.revision:
                changes = await anext(aiter(watch))
                reached, batches, events = changes.revision, batches + 1, events + len(changes.events)
            assert events == 50 and batches < 10
