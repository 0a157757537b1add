"""What every node keeps in mind of the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.state.directory import Directory
from rota.cluster.state.records import Member, QueueRecord, TaskRecord, encode
from tests.cluster.node.bench import KEYS, Bench, a_moment, play

MEMBER = encode(Member("here", ["*"], {"m:f": "async"}, {}, "3.11", "0", 0.0))


def act(deed: Callable[[Bench, Directory], Awaitable[None]]) -> None:
    async def main(bench: Bench) -> None:
        directory = Directory(bench.ledger, KEYS)
        running = asyncio.create_task(directory.run(), name="directory")
        await deed(bench, directory)
        running.cancel()
        await asyncio.wait([running])

    play(main)


async def join(bench: Bench, node: str, lease: int, *, stands: bool = False) -> None:
    await bench.ledger.grant(1_000, lease)
    puts = [Put(KEYS.node(node), MEMBER, lease)]
    if stands:
        puts.append(Put(KEYS.candidate(lease), node.encode(), lease))
    await bench.ledger.commit(Txn((), tuple(puts)))


def test_it_knows_what_there_is_and_follows_what_comes() -> None:
    async def deed(bench: Bench, directory: Directory) -> None:
        await join(bench, "a", 1, stands=True)
        await bench.put((KEYS.task("m:f"), encode(TaskRecord("async"))))
        await directory.listed.wait()
        await a_moment()
        assert list(directory.members) == ["a"] and directory.master == "a"
        assert directory.tasks == {"m:f": TaskRecord("async")} and directory.queues == {}
        await join(bench, "b", 2, stands=True)
        await bench.put((KEYS.queue("q"), encode(QueueRecord(serial=True))))
        await a_moment()
        assert list(directory.members) == ["a", "b"] and directory.queues == {"q": QueueRecord(serial=True)}
        await bench.ledger.revoke(1)
        await bench.delete(KEYS.queue("q"), KEYS.task("m:f"))
        await a_moment()
        assert list(directory.members) == ["b"] and directory.master == "b"
        assert not directory.queues and not directory.tasks
        assert directory.revision == (await bench.ledger.read(b"x")).revision

    act(deed)


def test_it_is_listed_when_all_of_it_is() -> None:
    async def deed(bench: Bench, directory: Directory) -> None:
        reads, read = [], bench.ledger.read
        go_on = asyncio.Event()

        async def slow(key: bytes, *bounds: bytes, **options: int) -> object:
            reads.append(key)
            if key == KEYS.queues:
                await go_on.wait()
            return await read(key, *bounds, **options)

        bench.ledger.read = slow  # type: ignore[method-assign, assignment]
        await a_moment(1.0)
        assert set(reads) == {KEYS.nodes, KEYS.master, KEYS.tasks, KEYS.queues, KEYS.express}
        assert not directory.listed.is_set()
        go_on.set()
        await directory.listed.wait()

    act(deed)


def test_a_compaction_is_made_up_for() -> None:
    async def deed(bench: Bench, directory: Directory) -> None:
        await bench.put((KEYS.queue("old"), encode(QueueRecord(paused=True))))
        await directory.listed.wait()
        await bench.delete(KEYS.queue("old"))
        await bench.ledger.compact(await bench.put((KEYS.queue("new"), encode(QueueRecord(paused=True)))))
        await a_moment()
        assert list(directory.queues) == ["new"]

    act(deed)


@pytest.mark.parametrize("value", [b"garbage", b"{}"])
def test_what_cannot_be_read_is_as_good_as_absent(value: bytes) -> None:
    async def deed(bench: Bench, directory: Directory) -> None:
        await bench.put((KEYS.task("m:f"), value), (KEYS.master + b"not a lease", b"x"), (KEYS.node("x"), value))
        await directory.listed.wait()
        assert not directory.tasks and directory.master == "" and not directory.members

    act(deed)


def test_a_task_that_is_not_known_yet_is_looked_up() -> None:
    async def deed(bench: Bench, directory: Directory) -> None:
        assert await directory.task_mode("m:f") is None
        await bench.put((KEYS.task("m:f"), encode(TaskRecord("sync"))))
        assert await directory.task_mode("m:f") == "sync"

    act(deed)
