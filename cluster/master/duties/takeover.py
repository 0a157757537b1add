"""Taking over the claims of a dead node: each token goes back to its place, less what its bitmap shows finished.

Guarded by the master's fence, by the absence of the member key (a node's name is never used again) and by the claim
itself. The first orphaning makes a bundle suspect; only a suspect that had been started counts as lost. The second loss
ends in the failed set if nothing else can have run on its node by then, the third in any case: it may be what kills its
nodes (docs/decisions/0004). A task may want its orphans to wait (`requeue_delay`), or to fail if they may have begun
(`on_orphan="fail"`: their nodes record the start before it happens).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from msgspec.structs import replace

from ...context import TermContext
from ...ledger.commits import Write, unmodified
from ...ledger.ledger import Condition, Ledger, Record, Target, prefix_end
from ...ledger.scan import scan
from ...state import moves
from ...state.quarantine import SetAside, left_at
from ...state.records import TaskRecord, claim_in

log = logging.getLogger(__name__)

LOSSES_MAX = 3
LOSSES_ALONE_MAX = 2
"""The last of them while nothing else can have run on the node."""

PAGE = 500


async def take_over(
    context: TermContext, node: str, *, tasks: Mapping[str, TaskRecord], aside: SetAside
) -> int | None:
    """Move every claim of a dead node; returns how many, or None if the fence no longer holds."""
    keys, fence = context.keys, context.fence
    dead = Condition(keys.node(node), Target.LEASE, "==", 0)
    prefix = keys.claims_of(node)
    batch, ran = await _suspects(context.ledger, prefix)
    losses_max = LOSSES_ALONE_MAX if ran == 1 else LOSSES_MAX
    start, moved, again, more = prefix, 0, False, True
    while True:
        writes = [await _back(context, (fence, dead), record, tasks, aside, losses_max) for record in batch]
        verdicts = await asyncio.gather(*(context.commits.submit(write) for write in writes if write is not None))
        again |= any(
            write is not None and left_at(write, record.key) is not None
            for record, write in zip(batch, writes, strict=True)
        )
        for verdict in verdicts:
            moved += verdict.applied
            again |= not verdict.applied
            if verdict.failed is not None and verdict.failed.key == fence.key:
                return None
            if verdict.failed is not None and verdict.failed.key == dead.key:
                log.error("node %s is a member again: its claims stay where they are", node)
                return moved
        if not more:
            if not again:
                return moved
            start, again = prefix, False        # what has changed since it was read
        page = await context.ledger.read(start, prefix_end(prefix), limit=PAGE)
        batch, more = page.records, page.more
        if more:
            start = batch[-1].key + b"\0"


async def _suspects(ledger: Ledger, prefix: bytes) -> tuple[tuple[Record, ...], int]:
    """Those that were lost before, and ran; and how many claims may have run in all. They are moved first: if this
    master ends half-way, the next one must not find them without the company that they had."""
    suspects, ran = [], 0
    async for record in scan(ledger, prefix):
        claim = claim_in(record.value)
        ran += claim is None or (claim.pending > 0 and (claim.started or not claim.suspect))
        if claim is not None and claim.lost and claim.started:
            suspects.append(record)
    return tuple(suspects), ran


async def _back(
    context: TermContext, who: moves.Conditions, record: Record, tasks: Mapping[str, TaskRecord], aside: SetAside,
    losses_max: int,
) -> Write | None:
    """None for a key that rota did not write: it is left alone."""
    keys, clock = context.keys, context.clock
    parsed, claim = keys.parse_claim(record.key), claim_in(record.value)
    if parsed is None:
        return None
    if claim is None:
        return await aside.unreadable(who, record)
    (node, bundle), at = parsed, unmodified(record.key, record.mod_revision)
    if not claim.pending:
        return Write((*who, at), moves.end(keys, record.key, bundle, claim))
    task = tasks.get(claim.task)
    verified = aside.words.heard_token(bundle, claim)
    past = verified.and_past(node, 0, int(clock.wall() * 1000), "its node was lost")
    claim = aside.words.token(bundle, replace(verified, past=past))
    if claim.started and task is not None and task.on_orphan == "fail":
        return await aside.fail(who, record, claim, "lost", node=node)
    lost = claim.lost + claim.started
    if lost >= losses_max:      # a suspect is split off, so there is one job in it
        return await aside.fail(who, record, claim, "orphaned", node=node)
    due_ms = int((clock.wall() + task.requeue_delay_s) * 1000) if task is not None and task.requeue_delay_s else 0
    body = await aside.to_part(bundle, claim)
    return moves.take_over(
        keys, who, at, bundle, claim, lost=lost, due_ms=due_ms, past=past, body=body, seal=context.seal
    )
