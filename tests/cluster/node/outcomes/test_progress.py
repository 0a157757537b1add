"""What a job has said is there for as long as it runs here, whatever becomes of the node's identity, of the writes, and
of earlier runs of the same job; and not longer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from msgspec.structs import replace

from rota.client.errors import NoSpace, WriteUnknown
from rota.client.model import Outcome
from rota.client.wire.views import LogLine
from rota.cluster.context import IdentityContext
from rota.cluster.ledger.commits import created
from rota.cluster.ledger.ledger import Put, Txn, TxnResult
from rota.cluster.node.claims.held import LocalJob
from rota.cluster.node.outcomes.progress import SWEEP_S, TWIN_S, Progress
from rota.cluster.state.records import ProgressRecord, decode
from rota.worker.channel.frames import ProgressUpdate

from ..bench import BUNDLE, KEYS, NODE, OTHER, Bench, a_moment, play

Here = dict[tuple[int, int], LocalJob]


def job(bundle: str = BUNDLE, attempt: int = 1) -> LocalJob:
    return LocalJob(bundle, 0, "m:f", "q", attempt, False)


def said(key: int, done: float) -> ProgressUpdate:
    return ProgressUpdate(key, 0, (done, 3.0, "", done))


async def stored(bench: Bench, bundle: str = BUNDLE) -> float | None:
    page = await bench.ledger.read(KEYS.progress_of(bundle, 0))
    record = decode(ProgressRecord, page.records[0].value) if page.records else None
    return record.done if record is not None else None


def a_write_gets_lost(bench: Bench) -> Callable[[], Awaitable[TxnResult]]:
    """The next one: nobody hears of it, and it comes when this is called."""
    commit, sent = bench.ledger.commit, list[Txn]()

    async def unsure(txn: Txn) -> TxnResult:
        sent.append(txn)
        if len(sent) == 1:
            raise WriteUnknown("no answer")
        return await commit(txn)

    bench.ledger.commit = unsure        # type: ignore[method-assign]
    return lambda: commit(sent[0])


class Rig:
    """A node's progress, under one identity after the other."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.here: Here = {}
        self.progress = Progress(lambda key, index: self.here.get((key, index)))
        self._lease = 0

    @asynccontextmanager
    async def identity(self, *, same: bool = False):  # type: ignore[no-untyped-def]
        """Until its lease ends; `same`: it goes on afterwards."""
        ledger, node = self.bench.ledger, KEYS.node(f"{NODE}-{self._lease}")
        self._lease += not same
        with suppress(Exception):
            await ledger.grant(100_000, self._lease)
        joined = await ledger.commit(Txn((), (Put(node, b"{}", self._lease),)))
        context: IdentityContext = replace(self.bench.context, member=created(node, joined.revision))
        task = asyncio.create_task(self.progress.report(context, self._lease))
        await a_moment()
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def lose(self) -> None:
        await self.bench.ledger.revoke(self._lease)


def play_with(deed: Callable[[Bench, Rig], Awaitable[None]]) -> None:
    async def main(bench: Bench) -> None:
        await deed(bench, Rig(bench))

    play(main)


def test_it_is_written_and_deleted() -> None:
    async def deed(bench: Bench, rig: Rig) -> None:
        async with rig.identity():
            rig.here[1, 0] = job()
            rig.progress.say(said(1, 1))
            await a_moment()
            assert await stored(bench) == 1
            rig.progress.say(said(1, 3))
            await a_moment(1)
            assert await stored(bench) == 3
            rig.progress.ended([(1, Outcome(0, "ok"))])
            await a_moment()
            assert await stored(bench) is None and not rig.progress._jobs and not rig.progress._refs

    play_with(deed)


def test_an_earlier_run_that_is_swept_leaves_what_the_next_run_here_says() -> None:
    """A lease that ran out and lived: the job is handed back, comes again, and the first run's end is noticed late."""
    async def deed(bench: Bench, rig: Rig) -> None:
        async with rig.identity():
            rig.here[1, 0] = job()
            rig.progress.say(said(1, 3))
            await a_moment()
            del rig.here[1, 0]
            rig.here[2, 0] = job()
            rig.progress.say(said(2, 3))
            await a_moment(3 * SWEEP_S)
            assert await stored(bench) == 3
            rig.progress.ended([(2, Outcome(0, "ok"))])
            await a_moment(TWIN_S + 1)
            assert await stored(bench) is None and not rig.progress._jobs

    play_with(deed)


def test_what_is_still_said_is_written_under_the_next_identity() -> None:
    async def deed(bench: Bench, rig: Rig) -> None:
        rig.here[1, 0] = job()
        async with rig.identity():
            rig.progress.say(said(1, 3))
            await a_moment()
            await rig.lose()
            assert await stored(bench) is None
        async with rig.identity():
            await a_moment()
            assert await stored(bench) == 3

    play_with(deed)


def test_an_identity_that_counts_anew_means_another_job() -> None:
    async def deed(bench: Bench, rig: Rig) -> None:
        rig.here[1, 0] = job()
        async with rig.identity():
            rig.progress.say(said(1, 3))
            await a_moment()
            await rig.lose()
        rig.here[1, 0] = job(OTHER)
        rig.progress.say(said(1, 1))            # before it is reported again
        async with rig.identity():
            await a_moment(1)
            assert (await stored(bench), await stored(bench, OTHER)) == (None, 1)

    play_with(deed)


def test_a_report_that_begins_anew_forgets_nothing() -> None:
    async def deed(bench: Bench, rig: Rig) -> None:
        rig.here[1, 0] = job()
        async with rig.identity():
            rig.progress.say(said(1, 1))
            await a_moment()
        rig.progress.say(said(1, 3))
        async with rig.identity(same=True):
            await a_moment()
            assert await stored(bench) == 3
            rig.progress.ended([(1, Outcome(0, "ok"))])
            await a_moment()
            assert await stored(bench) is None

    play_with(deed)


def test_what_a_store_without_room_refused_is_written_when_it_has() -> None:
    async def deed(bench: Bench, rig: Rig) -> None:
        rig.here[1, 0] = job()
        commit, full = bench.ledger.commit, True

        async def refuse(txn: Txn) -> TxnResult:
            if full and any(isinstance(op, Put) for op in txn.then):
                raise NoSpace("full")
            return await commit(txn)

        async with rig.identity():
            bench.ledger.commit = refuse        # type: ignore[method-assign]
            rig.progress.say(said(1, 3))
            await a_moment(2)
            assert await stored(bench) is None
            full = False
            await a_moment(2)
            assert await stored(bench) == 3

    play_with(deed)


def test_a_late_twin_of_a_delete_leaves_what_the_next_run_says() -> None:
    async def deed(bench: Bench, rig: Rig) -> None:
        rig.here[1, 0] = job()
        async with rig.identity():
            rig.progress.say(said(1, 3))
            await a_moment()
            late_twin = a_write_gets_lost(bench)
            rig.progress.ended([(1, Outcome(0, "retry"))])
            await a_moment(1)
            assert await stored(bench) is None
            rig.here = {(2, 0): job(attempt=2)}
            rig.progress.say(said(2, 1))
            await a_moment(1)
            await late_twin()
            await a_moment(2 * TWIN_S)
            assert await stored(bench) == 1

    play_with(deed)


def test_a_late_twin_of_a_write_does_not_outlive_the_claim() -> None:
    async def deed(bench: Bench, rig: Rig) -> None:
        claim = await bench.claim(count=1)
        rig.here[1, 0] = replace(job(), claim=claim)
        async with rig.identity():
            late_twin = a_write_gets_lost(bench)
            rig.progress.say(said(1, 3))
            await a_moment(1)
            assert await stored(bench) == 3
            rig.progress.ended([(1, Outcome(0, "ok"))])
            await bench.delete(claim.key)
            await a_moment(2 * TWIN_S)
            await late_twin()               # long after
            await a_moment(1)
            assert await stored(bench) is None

    play_with(deed)


@pytest.mark.parametrize("ref", [1, 2])
def test_a_write_that_arrives_when_the_next_run_has_begun_is_deleted_with_that(ref: int) -> None:
    """It was seed 1469: what is retried where it lies (levels `delayed`, `none`) keeps its reference, and the second
    run, which had said nothing yet, forgot what the first one had on its way."""
    async def deed(bench: Bench, rig: Rig) -> None:
        commit, gate = bench.ledger.commit, asyncio.Event()

        async def slow(txn: Txn) -> TxnResult:
            await gate.wait()
            return await commit(txn)

        async with rig.identity():
            rig.here[1, 0] = job()
            bench.ledger.commit = slow          # type: ignore[method-assign]
            rig.progress.say(said(1, 3))
            await a_moment()
            rig.progress.ended([(1, Outcome(0, "retry"))])
            rig.here = {(ref, 0): job(attempt=2)}
            rig.progress.say(ProgressUpdate(ref, 0, None, [LogLine(0, "INFO", "again")], 1))
            gate.set()
            await a_moment(1)
            assert await stored(bench) == 3
            rig.progress.ended([(ref, Outcome(0, "ok"))])
            await a_moment(2 * TWIN_S)
            assert await stored(bench) is None and not rig.progress._jobs

    play_with(deed)


def test_a_late_twin_of_a_write_is_deleted_by_a_run_that_says_nothing() -> None:
    async def deed(bench: Bench, rig: Rig) -> None:
        async with rig.identity():
            rig.here[1, 0] = job()
            late_twin = a_write_gets_lost(bench)
            rig.progress.say(said(1, 3))
            await a_moment(1)
            rig.progress.ended([(1, Outcome(0, "retry"))])
            await a_moment(1)
            rig.here = {(2, 0): job(attempt=2)}
            rig.progress.say(ProgressUpdate(2, 0, None, [LogLine(0, "INFO", "again")], 1))
            await late_twin()
            await a_moment(2 * TWIN_S)          # the time at which the first one would be deleted once more is over
            rig.progress.ended([(2, Outcome(0, "ok"))])
            await a_moment(2 * TWIN_S)
            assert await stored(bench) is None and not rig.progress._jobs

    play_with(deed)


def test_what_another_node_says_of_it_is_left_alone() -> None:
    async def deed(bench: Bench, rig: Rig) -> None:
        rig.here[1, 0] = job()
        async with rig.identity():
            rig.progress.say(said(1, 3))
            await a_moment()
            await bench.ledger.grant(1_000, 77)
            value = (await bench.record(KEYS.progress_of(BUNDLE, 0))).value
            await bench.ledger.commit(Txn((), (Put(KEYS.progress_of(BUNDLE, 0), value, 77),)))
            rig.here.clear()
            await a_moment(SWEEP_S + 2 * TWIN_S)
            assert await stored(bench) == 3 and not rig.progress._jobs

    play_with(deed)
