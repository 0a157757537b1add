"""Who is master: the first that stands, as long as its key lives."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from rota.cluster.events.records import StrangerDeposed
from rota.cluster.ledger.commits import created
from rota.cluster.ledger.ledger import Condition, Put, Txn
from rota.cluster.master.election.election import Deposed, Election
from tests.cluster.node.bench import KEYS, Bench, a_moment, play


async def candidate(bench: Bench, number: int) -> Election:
    """A node that has joined, and its candidacy."""
    node, lease = f"m{number}", 100 + number
    await bench.ledger.grant(1_000, lease)
    joined = await bench.ledger.commit(Txn((), (Put(KEYS.node(node), b"{}", lease),)))
    member = created(KEYS.node(node), joined.revision)
    return Election(replace(bench.context, node=node, member=member), lease)


async def stand(election: Election) -> asyncio.Task[Condition]:
    task = asyncio.create_task(election.campaign(), name="campaign")
    await a_moment()
    return task


async def fence_of(bench: Bench, election: Election) -> Condition:
    return created(election.key, (await bench.record(election.key)).create_revision)


def test_the_first_is_master_and_the_next_follows_when_it_is_gone() -> None:
    async def deed(bench: Bench) -> None:
        first, second, third = [await candidate(bench, number) for number in range(3)]
        one, two, three = [await stand(election) for election in (first, second, third)]
        assert await one == await fence_of(bench, first) and not two.done()
        await bench.ledger.revoke(100)
        await a_moment()
        assert await two == await fence_of(bench, second) and not three.done()
        await second.resign(two.result())
        assert await three == await fence_of(bench, third)

    play(deed)


def test_who_waits_behind_one_that_leaves_waits_on() -> None:
    async def deed(bench: Bench) -> None:
        first, second, third = [await candidate(bench, number) for number in range(3)]
        await stand(first)
        two, three = [await stand(election) for election in (second, third)]
        await bench.ledger.revoke(101)
        await a_moment()
        assert not three.done()
        two.cancel()
        three.cancel()
        await asyncio.wait([two, three])

    play(deed)


@pytest.mark.parametrize("overtaken", [False, True])
def test_who_lost_its_key_stands_again(overtaken: bool) -> None:
    async def deed(bench: Bench) -> None:
        first, second = [await candidate(bench, number) for number in range(2)]
        await stand(first)
        two = await stand(second)
        await bench.delete(second.key)
        if overtaken:
            await bench.ledger.compact(await bench.put((b"elsewhere", b"")))
        await a_moment()
        assert await bench.record(second.key) and not two.done()
        await bench.ledger.revoke(100)
        assert await two == await fence_of(bench, second)

    play(deed)


def test_who_is_no_member_any_more_is_deposed() -> None:
    async def deed(bench: Bench) -> None:
        election = await candidate(bench, 0)
        await bench.delete(KEYS.node("m0"))
        with pytest.raises(Deposed):
            await election.campaign()

    play(deed)


def test_a_stranger_is_not_waited_for() -> None:
    """Somebody wrote a candidate that is no node: it would be master for ever."""
    async def deed(bench: Bench) -> None:
        said: list[Any] = []
        bench.context.events.listen(said.append, [StrangerDeposed])
        await bench.put((KEYS.candidate(5), b"nobody"), (KEYS.master + b"not a lease", b"x"))
        election = await candidate(bench, 0)
        assert await election.campaign() == await fence_of(bench, election)
        assert len(said) == 1 and await bench.names(KEYS.master) == ["64", "not a lease"]

    play(deed)
