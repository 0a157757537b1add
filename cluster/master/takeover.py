"""Taking over the claims of a dead node: each token goes back to its place, less what its bitmap shows finished.

Guarded by the master's fence, by the absence of the member key (a node's name is never used again) and by the claim
itself. The first orphaning makes a bundle suspect; only a suspect that had been started counts as lost, and the third
loss ends in the failed set: it may be what kills its nodes. A task may want its orphans to wait (`requeue_delay`), or
to fail if they may have begun (`on_orphan="fail"`: their nodes record the start before it happens).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from msgspec.structs import replace

from ..clock import Clock
from ..ledger.commits import Commits, Write, unmodified
from ..ledger.ledger import Condition, Ledger, Record, Target, prefix_end
from ..state import moves
from ..state.keys import Keys
from ..state.quarantine import SetAside
from ..state.records import TaskRecord, claim_in

log = logging.getLogger(__name__)

LOSSES_MAX = 3
PAGE = 500


async def take_over(
    ledger: Ledger, keys: Keys, clock: Clock, commits: Commits, fence: Condition, node: str, *,
    tasks: Mapping[str, TaskRecord], aside: SetAside,
) -> int | None:
    """Move every claim of a dead node; returns how many, or None if the fence no longer holds."""
    dead = Condition(keys.node(node), Target.LEASE, "==", 0)
    prefix = keys.claims_of(node)
    start, moved, again = prefix, 0, False
    while True:
        page = await ledger.read(start, prefix_end(prefix), limit=PAGE)
        writes = [await _back(keys, clock, (fence, dead), record, tasks, aside) for record in page.records]
        verdicts = await asyncio.gather(*(commits.submit(write) for write in writes if write is not None))
        for verdict in verdicts:
            moved += verdict.applied
            again |= not verdict.applied
            if verdict.failed is not None and verdict.failed.key == fence.key:
                return None
            if verdict.failed is not None and verdict.failed.key == dead.key:
                log.error("node %s is a member again: its claims stay where they are", node)
                return moved
        if page.more:
            start = page.records[-1].key + b"\0"
        elif again:
            start, again = prefix, False        # what has changed since it was read
        else:
            return moved


async def _back(
    keys: Keys, clock: Clock, who: moves.Conditions, record: Record, tasks: Mapping[str, TaskRecord],
    aside: SetAside,
) -> Write | None:
    """None for a key that rota did not write: it is left alone."""
    parsed, claim = keys.parse_claim(record.key), claim_in(record.value)
    if parsed is None:
        return None
    if claim is None:
        return await aside.unreadable(who, record)
    (node, bundle), at = parsed, unmodified(record.key, record.mod_revision)
    if not claim.pending:
        return Write((*who, at), moves.end(keys, record.key, bundle, claim))
    task = tasks.get(claim.task)
    told = aside.words.heard_token(bundle, claim)
    past = told.and_past(node, 0, int(clock.wall() * 1000), "its node was lost")
    claim = aside.words.token(bundle, replace(told, past=past))
    if claim.started and task is not None and task.on_orphan == "fail":
        return await aside.fail(who, record, claim, "lost", node=node)
    lost = claim.lost + claim.started
    if lost >= LOSSES_MAX:      # a suspect runs alone, so there is one job in it
        return await aside.fail(who, record, claim, "orphaned", node=node)
    due_ms = int((clock.wall() + task.requeue_delay_s) * 1000) if task is not None and task.requeue_delay_s else 0
    return moves.take_over(keys, who, at, bundle, claim, lost=lost, due_ms=due_ms, past=past)
