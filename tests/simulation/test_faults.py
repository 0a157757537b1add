"""The faulty ledger does what it says: each fault on its own, then all of them, replayed."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from rota.client.errors import Compacted, LeaseGone, LedgerError, LedgerUnavailable, StoreBusy, WriteUnknown
from rota.cluster.ledger.ledger import Condition, Ledger, Put, Target, Txn, prefix_end
from rota.cluster.ledger.memory import MemoryLedger, MemoryStore

from .faults import CALM, ROUGH, Fate, Faults, FaultyLedger
from .loop import VirtualClock, run_virtual

KEY = b"/k"
ONCE = Txn((Condition(KEY, Target.CREATE, "==", 0),), (Put(KEY, b"v"),))


def make_ledger(faults: Faults = CALM, seed: int = 1, store: MemoryStore | None = None) -> FaultyLedger:
    return FaultyLedger(MemoryLedger(store or MemoryStore(VirtualClock(), journal=True), "n1"), faults, seed=seed)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_it_is_a_ledger() -> None:
    async def main() -> None:
        ledger: Ledger = make_ledger()
        assert (await ledger.commit(ONCE)).succeeded
        assert (await ledger.read(KEY)).records[0].value == b"v"
        assert await ledger.grant(5, 9) == 5
        assert await ledger.keep_alive(9) == 5
        await ledger.revoke(9)
        assert (await ledger.status()).revision == 2
        await ledger.compact(2)
        await ledger.close()

    run_virtual(main())


@pytest.mark.parametrize(
    ("fate", "error", "applied"),
    [
        (Fate.REFUSED, LedgerUnavailable, False),
        (Fate.BUSY, StoreBusy, False),
        (Fate.ANSWER_LOST, WriteUnknown, True),
        (Fate.REQUEST_LOST, WriteUnknown, False),
    ],
)
def test_fates(fate: Fate, error: type[LedgerError], applied: bool) -> None:
    async def main() -> None:
        ledger = make_ledger()
        ledger.next_fates.append(fate)
        with pytest.raises(error):
            await ledger.commit(ONCE)
        await asyncio.sleep(60)
        assert bool((await ledger.inner.read(KEY)).records) is applied
        assert (await ledger.commit(ONCE)).succeeded is not applied

    run_virtual(main())


@pytest.mark.parametrize("seed", range(8))
def test_a_late_twin_applies_after_a_read_that_did_not_see_it(seed: int) -> None:
    async def main() -> float:
        ledger = make_ledger(Faults(late_s=(2.0, 5.0)), seed)
        ledger.next_fates.append(Fate.LATE)
        with pytest.raises(WriteUnknown):
            await ledger.commit(ONCE)
        seen = (await ledger.read(KEY)).records
        assert not seen
        began = now()
        while not (await ledger.inner.read(KEY)).records:       # noqa: ASYNC110 - the twin tells nobody
            await asyncio.sleep(0.01)
        assert ledger.counts["late twin applied"] == 1
        return now() - began

    assert 0 < run_virtual(main()) <= 5.1


def test_a_late_twin_of_a_repeated_write_is_refused_by_its_guard() -> None:
    async def main() -> None:
        ledger = make_ledger()
        ledger.next_fates.append(Fate.LATE)
        with pytest.raises(WriteUnknown):
            await ledger.commit(ONCE)
        await ledger.read(KEY)
        with suppress(WriteUnknown):
            await ledger.commit(ONCE)
        await asyncio.sleep(10)
        assert (await ledger.read(KEY)).records[0].version == 1
        assert ledger.counts.get("late twin applied", 0) + ledger.counts.get("late twin refused", 0) == 1

    run_virtual(main())


def test_a_cut_connection_hangs_to_the_deadline() -> None:
    async def main() -> None:
        ledger = make_ledger()
        ledger.disconnect()
        began = now()
        with pytest.raises(LedgerUnavailable):
            await ledger.read(KEY)
        assert now() - began == pytest.approx(ledger.faults.read_deadline_s)
        began = now()
        with pytest.raises((WriteUnknown, LedgerUnavailable)):
            await ledger.commit(ONCE)
        assert now() - began == pytest.approx(ledger.faults.write_deadline_s)
        ledger.reconnect()
        await ledger.read(KEY)

    run_virtual(main())


def test_a_short_cut_only_delays() -> None:
    async def main() -> None:
        ledger = make_ledger()
        ledger.disconnect()
        asyncio.get_running_loop().call_later(2, ledger.reconnect)
        assert (await ledger.commit(ONCE)).succeeded
        assert now() > 2

    run_virtual(main())


def test_a_cut_can_fall_between_request_and_answer() -> None:
    async def main() -> None:
        ledger = make_ledger(Faults(latency_s=(1.0, 1.0)))
        asyncio.get_running_loop().call_later(0.5, ledger.disconnect)
        with pytest.raises(WriteUnknown):
            await ledger.commit(ONCE)
        assert (await ledger.inner.read(KEY)).records

    run_virtual(main())


def test_a_cut_handle_does_not_concern_the_others() -> None:
    async def main() -> None:
        store = MemoryStore(VirtualClock())
        cut, whole = make_ledger(store=store), make_ledger(store=store)
        cut.disconnect()
        assert (await whole.commit(ONCE)).succeeded
        assert now() < 1

    run_virtual(main())


def test_a_watch_is_silent_while_cut_and_catches_up() -> None:
    async def main() -> None:
        store = MemoryStore(VirtualClock())
        ledger, other = make_ledger(store=store), make_ledger(store=store)
        async with ledger.watch(b"/", prefix_end(b"/"), from_revision=2) as watch:
            await other.commit(ONCE)
            assert (await anext(watch)).events
            ledger.disconnect()
            for i in range(5):
                await other.commit(Txn((), (Put(b"/%d" % i, b""),)))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(30):
                    await anext(watch)
            ledger.reconnect()
            changes = await anext(watch)
            assert [event.record.key for event in changes.events] == [b"/%d" % i for i in range(5)]

    run_virtual(main())


def test_a_watch_that_was_cut_past_a_compaction() -> None:
    async def main() -> None:
        store = MemoryStore(VirtualClock())
        ledger, other = make_ledger(store=store), make_ledger(store=store)
        async with ledger.watch(b"/", prefix_end(b"/"), from_revision=2) as watch:
            await other.commit(ONCE)
            await anext(watch)
            ledger.disconnect()
            for _ in range(5):
                revision = (await other.commit(Txn((), (Put(b"/a", b""),)))).revision
            await other.compact(revision)
            ledger.reconnect()
            with pytest.raises(Compacted):
                await anext(watch)

    run_virtual(main())


def test_a_cancelled_delivery_is_not_lost() -> None:
    async def main() -> None:
        ledger = make_ledger(Faults(watch_latency_s=(1.0, 1.0)))
        async with ledger.watch(KEY, from_revision=2) as watch:
            await ledger.commit(ONCE)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await anext(watch)
            assert [event.record.key for event in (await anext(watch)).events] == [KEY]

    run_virtual(main())


def test_a_stalled_watch() -> None:
    async def main() -> float:
        ledger = make_ledger(Faults(watch_stall=1.0, watch_stall_s=(4.0, 4.0)))
        async with ledger.watch(KEY, from_revision=2) as watch:
            await ledger.commit(ONCE)
            began = now()
            await anext(watch)
            return now() - began

    assert run_virtual(main()) == pytest.approx(4.0, abs=0.1)


def test_a_lease_lost_early() -> None:
    async def main() -> None:
        ledger = make_ledger()
        await ledger.grant(10, 7)
        await ledger.commit(Txn((), (Put(KEY, b"", 7),)))
        ledger.lose_lease(7)
        assert not (await ledger.read(KEY)).records
        with pytest.raises(LeaseGone):
            await ledger.keep_alive(7)

    run_virtual(main())


def run_rough(seed: int) -> tuple[list[object], dict[str, int]]:
    """Three writers count up one key each through everything that can go wrong, by guarded repeats."""

    async def main() -> tuple[list[object], dict[str, int]]:
        store = MemoryStore(VirtualClock(), journal=True)
        ledgers = [FaultyLedger(MemoryLedger(store, f"n{i}"), ROUGH, seed=seed * 100 + i) for i in range(3)]

        async def count_up(ledger: FaultyLedger, key: bytes) -> None:
            for i in range(100):
                txn = Txn((Condition(key, Target.VERSION, "==", i),), (Put(key, b"%d" % i),))
                while True:
                    with suppress(WriteUnknown, LedgerUnavailable, StoreBusy):
                        await ledger.commit(txn)
                        break

        async with asyncio.TaskGroup() as group:
            for ledger in ledgers:
                group.create_task(count_up(ledger, ledger.inner.name.encode()))
        await asyncio.sleep(30)
        assert store.revision == 301, "a twin applied twice, or a write is missing"
        assert store.journal is not None
        counts: dict[str, int] = {}
        for ledger in ledgers:
            for what, number in ledger.counts.items():
                counts[what] = counts.get(what, 0) + number
        return [(entry.at, entry.revision, entry.writer, entry.changes) for entry in store.journal], counts

    return run_virtual(main())


def test_rough_weather_is_survived_and_replayed() -> None:
    traces = {}
    total: dict[str, int] = {}
    for seed in range(5):
        trace, counts = run_rough(seed)
        assert run_rough(seed)[0] == trace, f"seed {seed} does not replay"
        traces[seed] = trace
        for what, number in counts.items():
            total[what] = total.get(what, 0) + number
    assert len({str(trace) for trace in traces.values()}) == 5
    for fate in Fate:
        assert fate is Fate.APPLIED or total[fate.value] > 0, fate
    assert total["late twin refused"] > 0
