"""A term as a whole: when it looks afresh, and when it is over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rota.cluster.events.records import SnapshotRetaken
from rota.cluster.ledger.commits import created
from rota.cluster.ledger.ledger import Put, Txn, prefix_end
from rota.cluster.master.dispatch.pacing import CALM_S
from rota.cluster.master.election.authority import Authority, OutOfStep
from rota.cluster.master.election.election import Deposed
from rota.cluster.master.term import Master
from rota.cluster.state.records import Member, encode

from ..node.bench import KEYS, NODE, Bench, a_moment, play, token


async def test_who_asks_afresh_is_told_what_was_said_meanwhile() -> None:
    authority = Authority()
    first = asyncio.create_task(authority.lost(), name="first")
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    authority.depose()
    authority.look_again("too late")
    with pytest.raises(Deposed):
        await authority.lost()


async def test_a_term_that_looks_again_goes_on() -> None:
    authority = Authority()
    first = asyncio.create_task(authority.lost(), name="first")
    await asyncio.sleep(0)
    authority.look_again("a claim was lost")
    with pytest.raises(OutOfStep, match="a claim was lost"):
        await first
    second = asyncio.create_task(authority.lost(), name="second")
    await asyncio.sleep(0)
    assert not second.done()
    second.cancel()


def test_a_master_that_has_looked_afresh_still_hears_that_it_is_deposed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by reading: the end of its watch made it deaf to the end of its fence."""
    async def deed(bench: Bench) -> None:
        fence, afresh, watch = KEYS.candidate(7), list[SnapshotRetaken](), bench.ledger.watch
        revision = await bench.put((fence, b"n1"))
        bench.node.events.listen(afresh.append, [SnapshotRetaken])  # type: ignore[arg-type]

        @contextlib.asynccontextmanager
        async def ends_once(*arguments: Any, **more: Any) -> AsyncIterator[Any]:
            monkeypatch.setattr(bench.ledger, "watch", watch)
            yield _nothing()

        monkeypatch.setattr(bench.ledger, "watch", ends_once)
        term = asyncio.create_task(Master(bench.node, created(fence, revision), node="n1").run(), name="term")
        await a_moment(5.0)
        assert [event.why for event in afresh] == ["the watch has ended"]
        await bench.ledger.commit(Txn((), (Put(fence, b"another"),)))
        await a_moment(5.0)
        assert term.done()
        with pytest.raises(ExceptionGroup) as caught:
            term.result()
        assert caught.group_contains(Deposed)

    play(deed)


async def _nothing() -> AsyncIterator[Any]:
    for change in ():
        yield change


def given(streams: bool, jobs: int = 5, apart_s: float = 0.002) -> tuple[int, float]:
    """In how many transactions a master gives out jobs that come one after the other, and when the last."""
    found: list[tuple[int, float]] = []

    async def deed(bench: Bench) -> None:
        fence = KEYS.candidate(7)
        revision = await bench.put((fence, b"n1"))
        member = Member("", ["*"], {"m:f": "async"}, {"async": 10}, "3.11", "0", 0.0)
        await bench.ledger.grant(3600, 9)
        await bench.delete(KEYS.node(NODE))
        await bench.ledger.commit(Txn((), (Put(KEYS.node(NODE), encode(member), 9),)))
        term = asyncio.create_task(Master(bench.node, created(fence, revision), node="n1").run(), name="term")
        await a_moment(1.0)
        for number in range(jobs):
            if number:
                await a_moment(apart_s)
            await bench.put((KEYS.job("q", 0, number, f"b{number}"), encode(token(1, calm=streams))))
        began = bench.clock.monotonic()
        while len(await bench.names(KEYS.claims_of(NODE))) < jobs:
            await a_moment(0.0005)
        took = bench.clock.monotonic() - began
        page = await bench.ledger.read(KEYS.claims_of(NODE), prefix_end(KEYS.claims_of(NODE)))
        found.append((len({record.mod_revision for record in page.records}), took))
        term.cancel()
        await asyncio.wait([term])

    play(deed)
    return found[0]


def test_jobs_of_a_stream_are_given_out_together_and_a_moment_later() -> None:
    """The first at once; the others a moment after it, though nothing else happens."""
    transactions, last_s = given(streams=True)
    assert transactions == 2 and last_s < CALM_S


def test_what_somebody_may_wait_for_is_given_out_at_once() -> None:
    transactions, last_s = given(streams=False)
    assert transactions == 5 and last_s < 0.002
