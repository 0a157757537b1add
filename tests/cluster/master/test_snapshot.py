"""What a new master reads before it decides anything."""

from __future__ import annotations

from msgspec.structs import replace

from rota.cluster.clock import SystemClock
from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.master.dispatch.picture import Picture
from rota.cluster.master.snapshot import PAGE_FIRST, take_snapshot
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Member, QueueRecord, TaskRecord, Token, claim_of, encode

KEYS = Keys("t")


async def picture_of(ledger: MemoryLedger) -> tuple[Picture, int]:
    picture = Picture(KEYS)
    return picture, await take_snapshot(ledger, KEYS, SystemClock(), picture)


async def test_it_knows_nodes_settings_claims_and_the_heads_of_all_queues() -> None:
    ledger = MemoryLedger()
    await ledger.grant(60, 7)
    token = Token("m:f", "q", 0, 1, 1, "sync", 0)
    member = Member("", ["*"], {"m:f": "sync"}, {"sync": 2}, "3.11", "0", 0.0)
    stored = await ledger.commit(Txn((), (
        Put(KEYS.node("n1"), encode(member), 7), Put(KEYS.task("m:f"), encode(TaskRecord("sync"))),
        Put(KEYS.queue("q"), encode(QueueRecord(serial=True))), Put(KEYS.claim("n1", "b"), encode(claim_of(token, 5))),
        Put(KEYS.job("q", 0, 1, "c"), encode(token)), Put(KEYS.job("r", 0, 1, "d"), encode(replace(token, queue="r"))),
    )))
    picture, revision = await picture_of(ledger)
    assert revision == stored.revision and picture.is_open
    assert list(picture.nodes) == ["n1"] and list(picture.nodes["n1"].held) == ["b"]
    assert picture.queues["q"].settings.serial and "m:f" in picture.tasks
    assert {name: queue.size for name, queue in picture.queues.items()} == {"q": 1, "r": 1}


async def test_of_a_long_queue_it_reads_the_beginning_and_knows_that_there_is_more() -> None:
    ledger = MemoryLedger()
    token = encode(Token("m:f", "q", 0, 1, 1, "sync", 0))
    for start in range(0, PAGE_FIRST + 100, 100):
        await ledger.commit(Txn((), tuple(
            Put(KEYS.job("q", 0, number, f"b{number}"), token) for number in range(start + 1, start + 101)
        )))
    await ledger.commit(Txn((), (Put(KEYS.job("r", 0, 1, "d"), encode(Token("m:f", "r", 0, 1, 1, "sync", 0))),)))
    picture, _ = await picture_of(ledger)
    assert picture.queues["q"].size == PAGE_FIRST and picture.queues["r"].size == 1
    assert [window.queue.name for window in picture.partial if window.is_partial] == ["q"]
