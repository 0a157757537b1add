"""Jobs that wait for other jobs: let in what has ended, and release who waits for nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from rota.client.model import ResultEntry, Upstream
from rota.cluster.ledger.ledger import Changes, Event, Record, Txn
from rota.cluster.master.duties.dependants import Dependants
from rota.cluster.master.duties.ends import Ends
from rota.cluster.state import moves
from rota.cluster.state.quarantine import SetAside
from rota.cluster.state.records import Awaiting, encode

from ...node.bench import BUNDLE, KEYS, OTHER, Bench, body, play

KEY = KEYS.awaits("q", BUNDLE)


class Stage:
    """`BUNDLE` waits for the first job of `OTHER`."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        context, buckets = bench.term(bench.context.member), bench.context.buckets
        aside = SetAside(bench.ledger, KEYS, bench.clock, context.seal, buckets)
        ends = Ends(bench.ledger, KEYS, bench.commits, lambda queue: False)
        self.duty = Dependants(context, aside, buckets, ends)

    async def wait_for(self, **more: object) -> None:
        token = Awaiting("m:f", "q", 0, 7, 1, "async", 0, upstream=(Upstream(OTHER, jobs="1", wanted="1"),), **more)  # type: ignore[arg-type]
        bodies = ((KEYS.body(bundle), body(bundle, 1)) for bundle in (BUNDLE, OTHER))
        await self.bench.put(*bodies, (KEY, encode(token)))
        await self.see(await self.bench.record(KEY))

    async def end(self, status: str) -> None:
        """The job of `OTHER` ends so."""
        seal = self.bench.context.seal
        put = moves.result(KEYS, seal, OTHER, [ResultEntry(0, status, value=b"42")], 5, 0)  # type: ignore[arg-type]
        await self.bench.ledger.commit(Txn((), (put,)))
        await self.bench.delete(KEYS.body(OTHER))
        await self.see(Record(KEYS.job("q", 0, 7, OTHER), b"", 0, 99, 0), deleted=True)

    async def see(self, record: Record, *, deleted: bool = False) -> None:
        self.duty.see(Changes(record.mod_revision, [Event(deleted, record)]))
        await self.duty.settle()

    async def places(self) -> list[str]:
        """Where the token of `BUNDLE` lies."""
        names = await self.bench.names(KEYS.root)
        return [name.partition("/")[0] for name in names if name.endswith(BUNDLE) or f"{BUNDLE}/" in name]


def act(deed: Callable[[Stage], Awaitable[None]]) -> None:
    play(lambda bench: deed(Stage(bench)))


def test_it_waits_until_that_has_ended_and_gets_its_result() -> None:
    async def deed(stage: Stage) -> None:
        await stage.wait_for()
        assert await stage.places() == ["awaiting"]
        await stage.end("ok")
        assert await stage.places() == ["jobs"]
        assert len(await stage.bench.names(KEYS.inputs_of(BUNDLE))) == 1

    act(deed)


@pytest.mark.parametrize(("on_upstream", "places"), [("block", ["awaiting"]), ("cancel", []), ("run", ["jobs"])])
def test_what_is_done_when_that_does_not_end_well(on_upstream: str, places: list[str]) -> None:
    async def deed(stage: Stage) -> None:
        await stage.wait_for(on_upstream=on_upstream)
        await stage.end("cancelled")
        assert await stage.places() == places

    act(deed)


def test_what_is_due_later_is_scheduled_and_what_is_late_expires() -> None:
    async def deed(stage: Stage) -> None:
        await stage.wait_for(due=int(stage.bench.clock.wall() * 1000) + 60_000)
        await stage.end("ok")
        assert await stage.places() == ["scheduled"]

    async def late(stage: Stage) -> None:
        await stage.wait_for(expires=int(stage.bench.clock.wall() * 1000) + 1_000)
        await stage.duty.expire()
        assert await stage.places() == ["awaiting"]
        await asyncio.sleep(2)
        await stage.duty.expire()
        assert await stage.places() == []

    act(deed)
    act(late)


def test_who_waits_until_a_time_at_the_most_is_woken_then() -> None:
    """And not before; by a master that begins anew, too; with what has ended by then."""
    async def deed(stage: Stage) -> None:
        now_ms = int(stage.bench.clock.wall() * 1000)
        await stage.wait_for(on_upstream="run", until=now_ms + 1_000)
        await stage.duty.wake()
        assert await stage.places() == ["awaiting"]
        successor = Stage(stage.bench).duty
        await successor._load()
        assert 0.5 < successor._patience_s() < 1.1
        await asyncio.sleep(2)
        await successor.settle()
        await successor.wake()
        assert await stage.places() == ["jobs"]
        await stage.duty.wake()             # it is told that somebody else was first
        assert await stage.places() == ["jobs"] and stage.duty._awaited.alarms.next_ms is None

    async def ended(stage: Stage) -> None:
        await stage.wait_for(on_upstream="run", until=int(stage.bench.clock.wall() * 1000) + 1_000)
        await stage.end("ok")
        assert await stage.places() == ["jobs"] and stage.duty._awaited.alarms.next_ms is None

    act(deed)
    act(ended)
