"""Writes that are gathered into transactions: what becomes of those that come too late."""

from __future__ import annotations

import asyncio
import gc

import pytest
import uvloop

from rota.client.errors import LedgerUnavailable
from rota.cluster.clock import SystemClock
from rota.cluster.ledger import commits
from rota.cluster.ledger.commits import Commits, Write
from rota.cluster.ledger.ledger import Put
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.ledger.memory_store import MemoryStore

from ..node.bench import Bench, a_moment, play


def test_a_write_after_the_end_is_refused_and_leaves_nothing_that_nobody_looked_at() -> None:
    """(`play` raises for exceptions that nobody looked at.)"""
    async def main(bench: Bench) -> None:
        await bench.commits.__aexit__()
        late = bench.commits.submit(Write((), (Put(b"/x", b""),)))
        with pytest.raises(LedgerUnavailable, match="has ended"):
            await late
        bench.commits.submit(Write((), (Put(b"/x", b""),)))
        gc.collect()
        await a_moment()

    play(main)


def test_a_write_that_may_wait_goes_along_with_the_next_that_may_not() -> None:
    async def main(bench: Bench) -> None:
        await bench.commits.write((), (Put(b"/first", b""),))
        patient = bench.commits.submit(Write((), (Put(b"/patient", b""),)), patience_s=0.5)
        await a_moment(0.1)
        assert not patient.done()
        hasty = await bench.commits.write((), (Put(b"/hasty", b""),))
        assert patient.done() and patient.result().revision == hasty.revision

    play(main)


def test_alone_it_goes_when_its_patience_is_over_counted_from_the_last_transaction() -> None:
    async def main(bench: Bench) -> None:
        await bench.commits.write((), (Put(b"/first", b""),))
        began = bench.clock.monotonic()
        patient = bench.commits.submit(Write((), (Put(b"/patient", b""),)), patience_s=0.5)
        await asyncio.wait([patient], timeout=5.0)
        assert bench.clock.monotonic() - began == pytest.approx(0.5, abs=0.01)
        await a_moment(1.0)
        began = bench.clock.monotonic()
        await bench.commits.submit(Write((), (Put(b"/later", b""),)), patience_s=0.5)
        assert bench.clock.monotonic() - began < 0.01

    play(main)


def test_the_timer_of_what_is_due_within_this_millisecond() -> None:
    """(On uvloop that is no timer, and does not say when it is due.)"""
    async def main() -> None:
        store = Commits(MemoryLedger(MemoryStore(SystemClock())))
        await store.write((), (Put(b"/first", b""),))
        await asyncio.sleep(0.01)
        due = asyncio.get_running_loop().time() + 0.0004
        for number in range(3):
            store._last_start = due
            future = store.submit(Write((), (Put(b"/%d" % number, b""),)), patience_s=1e-6)
            store._pump()
        await future

    uvloop.run(main())


def test_the_least_patient_says_when_and_who_wants_all_of_it_done_waits_for_nothing() -> None:
    async def main(bench: Bench) -> None:
        await bench.commits.write((), (Put(b"/first", b""),))
        began = bench.clock.monotonic()
        for number, patience_s in enumerate((0.5, 0.2, 0.4)):
            bench.commits.submit(Write((), (Put(b"/%d" % number, b""),)), patience_s=patience_s)
        await a_moment(0.21)
        assert bench.commits.backlog == 0
        bench.commits.submit(Write((), (Put(b"/last", b""),)), patience_s=0.5)
        await bench.commits.until_idle()
        assert bench.clock.monotonic() - began == pytest.approx(0.21, abs=0.01)

    play(main)


def test_many_that_may_wait_need_no_other() -> None:
    async def main(bench: Bench) -> None:
        await bench.commits.write((), (Put(b"/first", b""),))
        began = bench.clock.monotonic()
        writes = [
            bench.commits.submit(Write((), (Put(b"/%d" % number, b""),)), patience_s=0.5)
            for number in range(commits.BESIDE_WRITES)
        ]
        await asyncio.wait(writes)
        assert bench.clock.monotonic() - began < 0.1

    play(main)
