"""Flows, as they are listed."""

from __future__ import annotations

from rota.client.calls.graphs import FlowPart, pack
from rota.cluster.admin.flows import FlowStatus
from rota.cluster.clock import SystemClock
from rota.cluster.ledger.ledger import Page, Put, Txn
from rota.cluster.ledger.memory import MemoryLedger, MemoryStore
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Claim, FlowRecord, encode

KEYS = Keys("t")


class Counting(MemoryLedger):
    looks = 0

    async def read(self, key: bytes, range_end: bytes = b"", **how: object) -> Page:
        self.looks += key == KEYS.claims
        return await super().read(key, range_end, **how)  # type: ignore[arg-type]


async def test_a_list_reads_what_nodes_have_once() -> None:
    """It was read for each flow that goes on: all claims of the cluster."""
    ledger = Counting(MemoryStore(SystemClock()))
    for number in range(3):
        flow, bundle = f"f{number}", f"b{number}"
        await ledger.commit(Txn((), (
            Put(KEYS.flow(flow), encode(FlowRecord("import", 1.0))),
            Put(KEYS.graph(flow, flow), pack([FlowPart(bundle, "m:f", "q", 1)])),
            Put(KEYS.claim("n1", bundle), encode(Claim("m:f", "q", 0, 1, 1, "async", 0, fence=1))),
        )))
    page = await FlowStatus(ledger, KEYS).page("", 10, "")
    assert [view.counts for view in page.flows] == [{"claimed": 1}] * 3 and ledger.looks == 1
    await ledger.close()
