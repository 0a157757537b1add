"""What `rota doctor` names."""

from __future__ import annotations

from rota.client.calls.graphs import FlowPart, pack
from rota.cluster.admin.strays import NAMED_MAX, strays
from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Claim, FlowRecord, Member, QueueRecord, RateRecord, TaskRecord, Token, encode
from rota.cluster.state.uniques import UniqueRecord

KEYS = Keys("c")
MEMBER = encode(Member("", ["*"], {}, {}, "3.11", "0", 1.0))
LEASE = 0x7ABC


async def named(*puts: Put) -> list[str]:
    ledger = MemoryLedger()
    await ledger.grant(60, LEASE)
    await ledger.commit(Txn((), puts))
    return [text async for text in strays(ledger, KEYS)]


async def test_a_cluster_in_good_order_has_none() -> None:
    assert await named(
        Put(KEYS.node("n-1"), MEMBER, LEASE), Put(KEYS.candidate(LEASE), b"n-1", LEASE),
        Put(KEYS.job("q", 0, 1, "b"), encode(Token("m:f", "q", 0, 1, 1, "sync", 0))),
        Put(KEYS.claim("n-1", "b"), encode(Claim("m:f", "q", 0, 1, 1, "sync", 0))),
        Put(KEYS.task("m:f"), encode(TaskRecord("sync"))), Put(KEYS.queue("q"), encode(QueueRecord(paused=True))),
        Put(KEYS.tail("q"), b"17"), Put(KEYS.cancel("b", 0), b"{}"),
        Put(KEYS.rate("key", "m:f", "a/b"), encode(RateRecord(5))),
        Put(KEYS.rate("queue", "q", ""), encode(RateRecord(5))),
        Put(KEYS.unique("m:f", "k/1"), encode(UniqueRecord("b", "jobs/q/50/1/b", 1))),
    ) == []


async def test_a_phantom_and_a_candidate_that_is_no_member() -> None:
    found = await named(
        Put(KEYS.nodes + b"phantom", MEMBER), Put(KEYS.master + b"0", b"x"), Put(KEYS.candidate(LEASE), b"x", LEASE)
    )
    named_ = [text.partition(":")[0] for text in found]
    assert named_ == ["/rota/c/nodes/phantom", "/rota/c/master/0, /rota/c/master/7abc"]


async def test_what_cannot_be_read_and_what_is_spelt_otherwise() -> None:
    found = await named(
        Put(KEYS.job("q", 0, 1, "b"), b"\xff"), Put(KEYS.jobs + b"q/50/1/b", b"{}"), Put(KEYS.queue("q"), b"[" * 9_000),
        Put(KEYS.cancels + "x-²".encode(), b"{}"), Put(KEYS.tail("q"), b"9" * 5_000), Put(KEYS.tasks + b"\xff", b"{}"),
    )
    assert len(found) == 5 and all(text.startswith("/rota/c/") for text in found)


async def test_rates_and_unique_keys() -> None:
    found = await named(
        Put(KEYS.rate("task", "m:f", ""), b"{"), Put(KEYS.rates + b"sky/x", encode(RateRecord(5))),
        Put(KEYS.unique("m:f", "k"), b"[]"), Put(KEYS.uniques + b"m:f", b"{}"),
    )
    rates, uniques = found
    assert "no rate's state" in rates and rates.count("/rota/c/rates/") == 2
    assert "no holder of a unique key" in uniques and uniques.count("/rota/c/unique/") == 2


async def test_flows() -> None:
    """What of them cannot be read, and a section that would be on its way for ever."""
    flow, graph = encode(FlowRecord("import", 1.0)), pack([FlowPart("b", "m:f", "q", 1)])
    assert await named(
        Put(KEYS.flow("f"), flow), Put(KEYS.graph("f", "f"), graph), Put(KEYS.section("f", "f"), b"{}"),
        Put(KEYS.section_open("g"), b"{}", LEASE),
    ) == []
    found = await named(
        Put(KEYS.flow("f"), b"{"), Put(KEYS.graph("f", "f"), graph[:-5]), Put(KEYS.flow_sections + b"f", b"{}"),
        Put(KEYS.section_open("g"), b"{}"),
    )
    assert [text.partition(":")[0].rpartition("/")[0] for text in found] == [
        "/rota/c/flows", "/rota-data/c/flows/f", "/rota/c/flow-sections", "/rota/c/flows-open",
    ]


async def test_of_many_some_are_named() -> None:
    (text,) = await named(*(Put(KEYS.jobs + b"x%d" % number, b"") for number in range(NAMED_MAX + 7)))
    assert "and 7 more" in text and len(text) < 1_000
