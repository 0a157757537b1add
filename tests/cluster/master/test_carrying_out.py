"""What the aggregator decides becomes writes, each guarded by the fence; and it is told what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from rota.client.model import Rate
from rota.cluster.events.records import BundleExpired, TookOver
from rota.cluster.ledger.commits import created
from rota.cluster.ledger.ledger import Event, Put, Txn, prefix_end
from rota.cluster.master.carrying_out import CarryingOut
from rota.cluster.master.dispatch.aggregator import Aggregator
from rota.cluster.master.dispatch.commands import Command, Expire, GiveClaim, LoadPage, Split, TakeOver
from rota.cluster.master.dispatch.picture import Picture
from rota.cluster.master.dispatch.rates import Reserve
from rota.cluster.master.election.authority import Authority
from rota.cluster.master.election.election import Deposed
from rota.cluster.state.discarding import Discards
from rota.cluster.state.quarantine import SetAside
from rota.cluster.state.records import Claim, Member, QueueRecord, Token, claim_of, decode, encode

from ..node.bench import BUNDLE, KEYS, NODE, OTHER, Bench, a_moment, body, play, token

LEASE = 7
FENCE = KEYS.candidate(LEASE)


def member(name: str, slots: int) -> Txn:
    said = Member("", ["*"], {"m:f": "sync"}, {"sync": slots}, "3.11", "0", 0.0)
    return Txn((), (Put(KEYS.node(name), encode(said), LEASE),))


HERE = member(NODE, 10)


class Stage:
    """A master that has seen all that is in the store."""

    def __init__(self, bench: Bench, fence: int, tasks: asyncio.TaskGroup) -> None:
        self.bench = bench
        self.picture = Picture(KEYS)
        self.aggregator = Aggregator(self.picture)
        self.authority, self.wake, self.events = Authority(), asyncio.Event(), list[Any]()
        term, buckets = bench.term(created(FENCE, fence)), bench.context.buckets
        term.events.listen(self.events.append, [BundleExpired, TookOver])
        self.carrying_out = CarryingOut(
            term, self.authority, self.aggregator,
            SetAside(bench.ledger, KEYS, bench.clock, term.seal, buckets),
            Discards(bench.ledger, KEYS, term.seal, buckets), buckets, tasks, self.wake,
        )

    async def look(self) -> None:
        """As a fresh snapshot would: nodes first."""
        for root in (KEYS.nodes, KEYS.root):
            page = await self.bench.ledger.read(root, prefix_end(root))
            self.picture.apply([Event(False, record) for record in page.records], page.revision, self.now)
        self.picture.open()

    @property
    def now(self) -> float:
        return self.bench.clock.monotonic()

    def decisions(self) -> list[Command]:
        return self.aggregator.decide(self.now, int(self.bench.clock.wall() * 1000))

    def decide(self, kind: type[Command]) -> Any:
        """The one command of this kind."""
        (command,) = (command for command in self.decisions() if isinstance(command, kind))
        return command

    async def carry_out(self, command: Command) -> None:
        self.carrying_out.carry_out(command)
        await a_moment()

    async def job(self, bundle: str = BUNDLE, count: int = 2, **more: object) -> bytes:
        key = KEYS.job("q", 0, 7, bundle)
        kept = replace(token(count), mode="sync", **more)
        await self.bench.put((key, encode(kept)), (KEYS.body(bundle), body(bundle, count)))
        return key

    async def too_large_a_job(self) -> None:
        """For the nodes that have room now, one of which has something to do."""
        await self.bench.claim(OTHER, claim=claim_of(replace(token(1), mode="sync"), 5))
        await self.bench.ledger.commit(member("n2", 2))
        await self.job(count=60)


def act(deed: Callable[[Stage], Awaitable[None]]) -> None:
    async def main(bench: Bench) -> None:
        fence = await bench.put((FENCE, b"n1"))
        await bench.ledger.grant(60, LEASE)
        await bench.ledger.commit(HERE)
        async with asyncio.TaskGroup() as tasks:
            await deed(Stage(bench, fence, tasks))

    play(main)


def test_a_claim_moves_the_token_under_its_node() -> None:
    async def deed(stage: Stage) -> None:
        await stage.job()
        await stage.look()
        await stage.carry_out(stage.decide(GiveClaim))
        claim = decode(Claim, (await stage.bench.record(KEYS.claim(NODE, BUNDLE))).value)
        assert claim is not None and (claim.task, claim.count) == ("m:f", 2)
        assert await stage.bench.names(KEYS.jobs) == [] and not stage.wake.is_set()

    act(deed)


def test_a_claim_that_came_too_late_is_told_and_decided_anew() -> None:
    async def deed(stage: Stage) -> None:
        await stage.job()
        await stage.look()
        command = stage.decide(GiveClaim)
        await stage.bench.ledger.commit(HERE)       # it says something new of itself
        await stage.carry_out(command)
        assert await stage.bench.names(KEYS.claims) == [] and stage.wake.is_set()
        await stage.look()
        await stage.carry_out(stage.decide(GiveClaim))
        assert await stage.bench.names(KEYS.claims) == [f"{NODE}/{BUNDLE}"]

    act(deed)


@pytest.mark.parametrize("kind", [GiveClaim, Split, Reserve])
def test_who_has_been_succeeded_writes_nothing_and_hears_of_it(kind: type[Command]) -> None:
    async def deed(stage: Stage) -> None:
        await (stage.job() if kind is not Split else stage.too_large_a_job())
        if kind is Reserve:
            await stage.bench.put((KEYS.queue("q"), encode(QueueRecord(rate=Rate(1, 60_000)))))
        await stage.look()
        command = stage.decide(kind)
        before = await stage.bench.names(KEYS.root)
        await stage.bench.put((FENCE, b"another"))
        await stage.bench.delete(FENCE)
        await stage.carry_out(command)
        assert await stage.bench.names(KEYS.root) == [name for name in before if "master" not in name]
        with pytest.raises(Deposed):
            await stage.authority.lost()

    act(deed)


def test_what_no_node_has_room_for_is_split() -> None:
    async def deed(stage: Stage) -> None:
        await stage.too_large_a_job()
        await stage.look()
        await stage.carry_out(stage.decide(Split))
        pieces = [
            decode(Token, (await stage.bench.record(KEYS.jobs + name.encode())).value)
            for name in await stage.bench.names(KEYS.jobs)
        ]
        assert len(pieces) > 1 and sum(piece.count for piece in pieces if piece is not None) == 60
        assert len(await stage.bench.names(KEYS.bodies)) == len(pieces) + 1 and stage.wake.is_set()

    act(deed)


def test_what_is_too_late_ends_and_is_said() -> None:
    async def deed(stage: Stage) -> None:
        await stage.job(expires=1)
        await stage.look()
        await stage.carry_out(stage.decide(Expire))
        assert await stage.bench.names(KEYS.jobs) == []
        assert [(event.bundle, event.jobs) for event in stage.events] == [(BUNDLE, 2)]

    act(deed)


def test_a_page_of_a_lane_is_read_and_shown() -> None:
    async def deed(stage: Stage) -> None:
        await stage.look()
        await stage.job()
        await stage.job(OTHER)
        await stage.carry_out(LoadPage("q", 0, b"", 1))
        await stage.carry_out(stage.decide(GiveClaim))
        assert await stage.bench.names(KEYS.claims) == [f"{NODE}/{BUNDLE}"] and stage.wake.is_set()

    act(deed)


def test_what_a_lost_node_held_goes_back_and_is_said_with_its_time() -> None:
    async def deed(stage: Stage) -> None:
        await stage.bench.claim()
        await stage.bench.delete(KEYS.node(NODE))
        await stage.look()
        await stage.carry_out(stage.decide(TakeOver))
        await a_moment(1.0)
        assert await stage.bench.names(KEYS.claims) == [] and len(await stage.bench.names(KEYS.jobs)) == 1
        assert [(event.node, event.claims) for event in stage.events] == [(NODE, 1)]

    act(deed)


def test_a_token_that_nobody_can_read_is_set_aside() -> None:
    async def deed(stage: Stage) -> None:
        await stage.bench.put((KEYS.job("q", 0, 7, BUNDLE), b"nonsense"), (KEYS.body(BUNDLE), body()))
        await stage.look()
        for command in stage.decisions():
            await stage.carry_out(command)
        await a_moment(1.0)
        assert await stage.bench.names(KEYS.jobs) == [] and len(await stage.bench.names(KEYS.failed)) == 2

    act(deed)


@pytest.mark.parametrize("wrong", ["token", "body", "jobs"])
def test_of_a_wide_bundle_that_must_not_run_all_is_set_aside(wrong: str) -> None:
    """Its token cannot be read; or its body is none, or that of other jobs."""
    async def deed(stage: Stage) -> None:
        await stage.bench.claim(OTHER, claim=claim_of(replace(token(1), mode="sync"), 5))       # the node is not idle
        kept = b"nonsense" if wrong == "token" else encode(replace(token(300), mode="sync"))
        stored = b"nonsense" if wrong == "body" else body(OTHER if wrong == "jobs" else BUNDLE, 300)
        await stage.bench.put((KEYS.job("q", 0, 7, BUNDLE), kept), (KEYS.body(BUNDLE), stored))
        await stage.look()
        for command in stage.decisions():
            await stage.carry_out(command)
        await a_moment(1.0)
        assert len(await stage.bench.names(KEYS.failed)) == 300
        assert await stage.bench.names(KEYS.jobs) == [] and await stage.bench.names(KEYS.bodies) == [OTHER]

    act(deed)
