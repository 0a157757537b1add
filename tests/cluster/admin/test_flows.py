"""Flows, as they are listed."""

from __future__ import annotations

import pytest

from rota.client.calls.graphs import FlowPart, pack
from rota.client.errors import FlowUnknown
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


@pytest.mark.parametrize(("on_upstream", "last", "state"), [
    ("block", "block", "stuck"), ("block", "run", "stuck"), ("run", "block", "running"), ("cancel", "block", "running"),
])
async def test_what_a_failure_does_not_hold_up_is_about_to_go_on(on_upstream: str, last: str, state: str) -> None:
    """"Stuck" was said of a flow whose next job the master had not let go yet."""
    ledger = MemoryLedger(MemoryStore(SystemClock()))
    parts = [
        FlowPart("b1", "m:f", "q", 1),
        FlowPart("b2", "m:f", "q", 1, (("b1", "1"),), on_upstream),     # type: ignore[arg-type]
        FlowPart("b3", "m:f", "q", 1, (("b2", "1"),), last),            # type: ignore[arg-type]
    ]
    await ledger.commit(Txn((), (
        Put(KEYS.flow("f"), encode(FlowRecord("import", 1.0))), Put(KEYS.graph("f", "f"), pack(parts)),
        Put(KEYS.failure("b1", 0), b"q"), Put(KEYS.awaits("q", "b2"), b"q"), Put(KEYS.awaits("q", "b3"), b"q"),
    )))
    assert (await FlowStatus(ledger, KEYS).view("f")).state == state
    await ledger.close()


async def test_who_asks_for_a_flow_with_a_damaged_graph_is_told() -> None:
    """It would never be over, and whoever waited for it did so for ever."""
    ledger = MemoryLedger(MemoryStore(SystemClock()))
    await ledger.commit(Txn((), (
        Put(KEYS.flow("f"), encode(FlowRecord("import", 1.0, jobs=3))), Put(KEYS.graph("f", "f"), b"no graph"),
    )))
    flows = FlowStatus(ledger, KEYS)
    with pytest.raises(FlowUnknown, match="cannot be read"):
        await flows.view("f", wait_s=60)
    (listed,) = (await flows.page("", 10, "")).flows
    assert (listed.state, listed.jobs) == ("running", 3)
    await ledger.close()
