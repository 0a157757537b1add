"""What lies below a cluster's roots and is not rota's, or cannot be read: for `rota doctor`. Nodes look over it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from rota.client.calls.graphs import unpack

from ..ledger.ledger import Ledger, Record
from ..ledger.scan import PAGE, scan
from ..state.express import ExpressRecord
from ..state.keys import Keys, shown
from ..state.outboxes import OutboxRecord
from ..state.records import (
    BoundRecord,
    FlowRecord,
    Member,
    QueueRecord,
    RateRecord,
    TaskRecord,
    claim_in,
    decode,
    operation_in,
    tail_of,
    waiting_at,
)
from ..state.schedules import schedule_in
from ..state.uniques import UniqueRecord

LOOKED_AT_MAX = 20_000
"""Records of each kind: of a backlog of millions the first pages are enough."""

GRAPHS_PER_PAGE = 50
"""Half a MiB each, at the most."""

NAMED_MAX = 10
"""Strays of each kind that are named; the others are counted."""


async def strays(ledger: Ledger, keys: Keys) -> AsyncIterator[str]:
    """One sentence for each kind of them that is there."""
    leases = {record.key: record.lease async for record in scan(ledger, keys.nodes, limit=LOOKED_AT_MAX)}

    def stands(record: Record) -> bool:
        lease = keys.parse_candidate(record.key)
        return lease is not None and record.lease == lease == leases.get(keys.nodes + record.value)

    kinds: tuple[tuple[bytes, str, Callable[[Record], bool]], ...] = (
        (keys.nodes, "no member (it has no lease, or cannot be read): nodes ignore it", lambda record: (
            keys.parse_node(record.key) is not None and record.lease != 0 and decode(Member, record.value) is not None
        )),
        (keys.master, "no candidate (its lease is no member's): nodes ignore it", stands),
        (keys.jobs, "no token", lambda record: waiting_at(keys, record) is not None),
        (keys.scheduled, "no token", lambda record: waiting_at(keys, record) is not None),
        (keys.awaiting, "no token", lambda record: waiting_at(keys, record) is not None),
        (keys.claims, "no claim", lambda record: (
            keys.parse_claim(record.key) is not None and claim_in(record.value) is not None
        )),
        (keys.failed, "no failed job", lambda record: keys.parse_failed(record.key) is not None),
        (keys.cancels, "no request to cancel", lambda record: keys.parse_cancel(record.key) is not None),
        (keys.tasks, "no task's settings: they are written anew when a node starts that has the task", lambda record: (
            keys.parse_task(record.key) is not None and decode(TaskRecord, record.value) is not None
        )),
        (keys.queues, "no queue's settings: `rota queue set` writes them anew", lambda record: (
            keys.parse_queue(record.key) is not None and decode(QueueRecord, record.value) is not None
        )),
        (keys.tails, "no end of a serial queue", lambda record: str(tail_of(record)).encode() == record.value),
        (keys.bounds, "no count of a bounded queue: the next enqueue counts anew", lambda record: (
            decode(BoundRecord, record.value) is not None
        )),
        (keys.rates, "no rate's state: the master writes it anew", lambda record: (
            keys.parse_rate(record.key) is not None and decode(RateRecord, record.value) is not None
        )),
        (keys.nonempty, "no flag of a queue: nothing is decided by it", lambda record: (
            keys.parse_flag(record.key) is not None
        )),
        (keys.express, "not what the master lends: it says it anew", lambda record: (
            record.key == keys.express and decode(ExpressRecord, record.value) is not None
        )),
        (keys.uniques, "no holder of a unique key: the next enqueue has it", lambda record: (
            keys.parse_unique(record.key) is not None and decode(UniqueRecord, record.value) is not None
        )),
        (keys.schedules, "no schedule", lambda record: schedule_in(record.value) is not None),
        (keys.outboxes, "no outbox's relay: it ends with its lease, or is to be deleted", lambda record: (
            keys.parse_outbox(record.key) is not None and record.lease != 0
            and decode(OutboxRecord, record.value) is not None
        )),
        (keys.flows, "no flow: its jobs go on, but it is never said to be over", lambda record: (
            keys.parse_flow(record.key) is not None and decode(FlowRecord, record.value) is not None
        )),
        (keys.graphs, "no graph of a flow: its jobs go on, but it is never said to be over", lambda record: (
            unpack(record.value) is not None
        )),
        (keys.flow_sections, "no section of a flow", lambda record: keys.parse_section(record.key) is not None),
        (keys.flows_open, "no section that is on its way (it has no lease): what waits for it is never given up",
         lambda record: keys.parse_open(record.key) is not None and record.lease != 0),
        (keys.operations, "no bulk operation", lambda record: operation_in(record.value) is not None),
    )
    for prefix, what, is_ours in kinds:
        size = GRAPHS_PER_PAGE if prefix == keys.graphs else PAGE
        records = scan(ledger, prefix, limit=LOOKED_AT_MAX, size=size)
        found = [record.key async for record in records if not is_ours(record)]
        if found:
            named = ", ".join(shown(key) for key in found[:NAMED_MAX])
            more = f" and {len(found) - NAMED_MAX:,} more" if len(found) > NAMED_MAX else ""
            yield f"{named}{more}: {what}"
