"""Outcomes on their way to the store: at once where a bundle is complete, in order, under the claim as it was last
written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from rota.client.errors import NoSpace
from rota.client.model import Outcome, Status
from rota.cluster.events.records import JobEnded, OutcomeVoid, OverwriteMended
from rota.cluster.ledger.ledger import Put, Txn, TxnResult
from rota.cluster.node.claims.held import Held
from rota.cluster.node.claims.table import Claims
from rota.cluster.node.outcomes import reporter
from rota.cluster.node.outcomes.reporter import Reporter
from rota.cluster.node.outcomes.settle import Keep
from rota.cluster.state.records import Claim, claim_of, decode, encode

from ..bench import BUNDLE, KEYS, Bench, a_moment, body, header, play, token

Told = list[Held]


def report(
    deed: Callable[[Bench, Reporter, Held, Told], Awaitable[None]], *, keep: Keep | None = None, count: int = 2
) -> None:
    """A reporter with one bundle; the last argument fills with the bundles whose claims have ended."""
    async def main(bench: Bench) -> None:
        ended: Told = []
        async with asyncio.TaskGroup() as group:
            reporter = Reporter(bench.context, bench.runners, keep or Keep(0.0, 0.0), ended.append)
            reporter.open(group)
            claim = claim_of(token(count), 5)
            record = await bench.claim(count=count)
            held = Claims().add(
                BUNDLE, record, claim, mod_revision=record.mod_revision, header=header(count=count),
                body=body(count=count),
            )
            bench.runners.tasks.clear()         # it keeps nothing, unless told so
            await deed(bench, reporter, held, ended)
            reporter.close()

    play(main)


def test_a_complete_bundle_is_committed_at_once() -> None:
    async def deed(bench: Bench, reporter: Reporter, held: Held, ended: Told) -> None:
        assert reporter.take(held, [Outcome(0, "ok")], 0.0)           # look at the clock for it
        assert not reporter.take(held, [Outcome(1, "ok")], 0.0)
        await a_moment()
        assert ended == [held] and reporter.finished == 2
        assert not await bench.names(KEYS.claims) and not await bench.names(KEYS.bodies)

    report(deed)


def test_part_of_a_bundle_is_committed_after_a_moment() -> None:
    async def deed(bench: Bench, reporter_: Reporter, held: Held, ended: Told) -> None:
        reporter_.take(held, [Outcome(1, "ok")], bench.clock.monotonic())
        assert reporter_.flush_due() == pytest.approx(reporter.PARTIAL_S)
        await a_moment(reporter.PARTIAL_S)
        assert reporter_.flush_due() is None
        await a_moment()
        claim = decode(Claim, (await bench.record(held.record.key)).value)
        assert claim is not None and claim.done_bits == 0b10 and not ended and reporter_.finished == 1

    report(deed)


def test_what_is_nearly_due_goes_with_what_is_due() -> None:
    """Each on its own was a transaction for each bundle that runs, twenty times a second."""
    async def deed(bench: Bench, reporter_: Reporter, held: Held, ended: Told) -> None:
        now, due = bench.clock.monotonic(), []
        for key, delay in ((101, 0.0), (102, 0.6), (103, 1.4)):
            other = Held(key, held.bundle, held.record, held.claim, 0)
            other.header, other.body = held.header, held.body
            due.append(other)
            reporter_.take(other, [Outcome(0, "ok")], now + delay * reporter.TOGETHER_S)
        reporter_.flush_due()
        await a_moment(reporter.PARTIAL_S)
        left = reporter_.flush_due()
        assert [bool(other.outcomes) for other in due] == [False, False, True] and left is not None
        assert not reporter_.take(due[0], [Outcome(1, "ok")], bench.clock.monotonic())      # it will be looked at

    report(deed, count=3)


def test_retries_wait_for_the_rest_of_their_bundle() -> None:
    async def deed(bench: Bench, reporter_: Reporter, held: Held, ended: Told) -> None:
        reporter_.take(held, [Outcome(0, "retry", delay_s=5.0)], 0.0)
        await a_moment(1.0)
        assert reporter_.flush_due() is None and await bench.names(KEYS.claims)
        reporter_.take(held, [Outcome(1, "ok")], 1.0)
        await a_moment()
        assert ended == [held] and len(await bench.names(KEYS.scheduled)) == 1

    report(deed)


def test_writes_of_one_claim_are_made_one_after_the_other() -> None:
    async def deed(bench: Bench, reporter: Reporter, held: Held, ended: Told) -> None:
        for index in range(3):
            if reporter.take(held, [Outcome(index, "ok")], 0.0):
                reporter.flush(held)
        assert len(held.queue) == 3 and held.writing
        await a_moment()
        assert ended == [held] and reporter.finished == 3

    report(deed, count=3)


def test_an_outcome_counts_only_under_its_own_claim() -> None:
    async def deed(bench: Bench, reporter: Reporter, held: Held, ended: Told) -> None:
        said: list[Any] = []
        bench.context.events.listen(said.append, [OutcomeVoid])
        await bench.delete(held.record.key)
        await bench.claim()                     # it was given to us again
        for index in range(2):
            reporter.take(held, [Outcome(index, "ok")], 0.0)
        await a_moment()
        assert said == [OutcomeVoid(BUNDLE)] and ended == [held] and reporter.finished == 0
        assert await bench.names(KEYS.claims) and bench.runners.withdrawn == []

    report(deed)


def test_what_somebody_wrote_over_a_claim_is_put_right() -> None:
    async def deed(bench: Bench, reporter: Reporter, held: Held, ended: Told) -> None:
        said: list[Any] = []
        bench.context.events.listen(said.append, [OverwriteMended])
        await bench.put((held.record.key, encode(claim_of(token(2, done="3"), 9))))
        for index in range(2):
            reporter.take(held, [Outcome(index, "ok")], 0.0)
        await a_moment()
        assert len(said) == 1 and ended == [held] and reporter.finished == 2 and not await bench.names(KEYS.claims)

    report(deed)


def test_a_full_store_takes_the_end_without_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deed(bench: Bench, reporter: Reporter, held: Held, ended: Told) -> None:
        commit = bench.ledger.commit

        async def full(txn: Txn) -> TxnResult:
            if any(isinstance(op, Put) for op in txn.then):
                raise NoSpace("full")
            return await commit(txn)

        monkeypatch.setattr(bench.ledger, "commit", full)
        for index in range(2):
            reporter.take(held, [Outcome(index, "ok")], 0.0)
        await a_moment(1.0)
        assert ended == [held] and not await bench.names(KEYS.claims)

    report(deed, keep=Keep(60.0, 0.0))


def test_while_the_store_refuses_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deed(bench: Bench, reporter_: Reporter, held: Held, ended: Told) -> None:
        commit, faults = bench.ledger.commit, [1, 2, 3]

        async def full_for_now(txn: Txn) -> TxnResult:
            if faults and any(isinstance(op, Put) for op in txn.then):
                faults.pop()
                raise NoSpace("full")
            return await commit(txn)

        monkeypatch.setattr(bench.ledger, "commit", full_for_now)
        reporter_.take(held, [Outcome(0, "failed", error="no")], 0.0)
        reporter_.take(held, [Outcome(1, "ok")], 0.0)
        await a_moment(reporter.AGAIN_S * 2 + 0.1)
        assert not ended and await bench.names(KEYS.claims)
        await a_moment(reporter.AGAIN_S * 2)
        assert ended == [held] and len(await bench.names(KEYS.failed)) == 1

    report(deed)


def test_who_listens_hears_of_every_outcome() -> None:
    async def deed(bench: Bench, reporter: Reporter, held: Held, ended: Told) -> None:
        said: list[Any] = []
        bench.context.events.listen(said.append, [JobEnded])
        reporter.take(held, [Outcome(0, "failed", error="no")], 0.0)
        assert said == [JobEnded(BUNDLE, 0, "m:f", "q", 1, "failed", "no")]

    report(deed)


def test_after_the_end_of_the_identity_nothing_is_written() -> None:
    async def deed(bench: Bench, reporter: Reporter, held: Held, ended: Told) -> None:
        reporter.close()
        for index in range(2):
            reporter.take(held, [Outcome(index, "ok")], 0.0)
        await a_moment(1.0)
        assert not ended and await bench.names(KEYS.claims)

    report(deed)


@pytest.mark.parametrize("status", ["sleep", "wait"])
def test_that_one_sleeps_is_told_where_the_others_expire(status: Status) -> None:
    """Their node may be lost before they end; and nothing is written for what does not expire."""
    async def deed(bench: Bench, reporter_: Reporter, held: Held, ended: Told) -> None:
        for expires, slept in ((0, ""), (9_000, "1")):
            held.claim, held.retries = replace(held.claim, expires=expires), []
            before = (await bench.record(held.record.key)).mod_revision
            reporter_.take(held, [Outcome(0, status, delay_s=5.0)], bench.clock.monotonic())
            await a_moment(reporter.PARTIAL_S)
            assert reporter_.flush_due() is None
            await a_moment()
            record = await bench.record(held.record.key)
            claim = decode(Claim, record.value)
            assert claim is not None and (claim.slept, claim.done, ended) == (slept, "", [])
            assert (record.mod_revision > before) == bool(slept) and len(held.retries) == 1

    report(deed)
