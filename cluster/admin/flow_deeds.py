"""What people do to a flow as a whole: cancel what has not ended, run again what has failed."""

from __future__ import annotations

import asyncio

from rota.client.calls.graphs import FlowPart
from rota.client.ids import job_id
from rota.client.wire.views import FailedFilter, FlowDone

from ..context import IdentityContext
from ..ledger.ledger import OPS_MAX, Get, Txn
from ..state.discarding import Discards
from ..state.records import Awaiting, awaiting_at, claim_in, waiting_at
from . import bulk
from .flows import FlowStatus, Known
from .jobs import Jobs
from .operations import Operations

AT_ONCE = 64
TURN_S = 3.0
"""One call goes on for so long; what is left, the next one does."""

CANCELLED = "its flow was cancelled"

TRIES_MAX = 200

NAMED_MAX = 10_000
"""Jobs that one call runs again."""


class FlowDeeds:
    """One identity's. Raises `FlowUnknown`, `InvalidJob`, `LedgerError`."""

    def __init__(self, context: IdentityContext, status: FlowStatus, jobs: Jobs, operations: Operations) -> None:
        self._jobs = jobs
        self._ledger = context.ledger
        self._keys = context.keys
        self._commits = context.commits
        self._member = context.member
        self._discards = Discards(context.ledger, context.keys, context.seal, context.buckets)
        self._status = status
        self._operations = operations

    async def cancel(self, flow: str) -> FlowDone:
        """The last jobs first: so nothing begins because another was cancelled. What has failed is left as it is."""
        known = await self._status.known(flow)
        if known.is_over:
            return FlowDone()
        until = asyncio.get_running_loop().time() + TURN_S
        states = await self._status.states(known)
        left = [
            (part, now) for part, now in zip(known.parts, states, strict=True) if any(map(_goes_on, now))
        ]
        done = await self._cancel_waiting([part for part, now in left if "awaiting" in now][::-1])
        rest = [
            (part.bundle, [index for index, state in enumerate(now) if _goes_on(state)])
            for part, now in reversed(left) if "awaiting" not in now
        ]
        asked = 0
        while rest and asyncio.get_running_loop().time() < until:
            some, rest = rest[:AT_ONCE], rest[AT_ONCE:]
            for cancelled, requested in await asyncio.gather(*(self._cancel(*one) for one in some)):
                done += cancelled
                asked += requested
        return FlowDone(done, asked, sum(len(indexes) for _, indexes in rest))

    async def _cancel(self, bundle: str, indexes: list[int]) -> tuple[int, int]:
        """Jobs of one bundle that were seen not to have ended; as many as lie in one token, with one write. Returns how
        many are cancelled, and how many are asked to stop."""
        cancelled = asked = tries = 0
        while indexes and tries < TRIES_MAX:
            _, record = await self._jobs.find(bundle, indexes[0])
            if record is None:
                indexes = indexes[1:]
                continue
            is_held = record.key.startswith(self._keys.claims)
            token = claim_in(record.value) if is_held else waiting_at(self._keys, record)
            if token is None:
                indexes = indexes[1:]
                continue
            if is_held:
                writes = await self._discards.claimed((self._member,), record, token)
            else:
                write = await self._discards.waiting((self._member,), record, token, why=CANCELLED)
                writes = [] if write is None else [write]
            verdicts = await asyncio.gather(*map(self._commits.submit, writes))
            if verdicts and all(verdict.applied for verdict in verdicts):
                all_of_it = b"." not in record.key.rpartition(b"/")[2]
                count = len(indexes) if all_of_it else 1
                asked, cancelled = asked + is_held * count, cancelled + (not is_held) * count
                indexes = [] if all_of_it else indexes[1:]
            tries += 1
        return cancelled, asked

    async def _cancel_waiting(self, parts: list[FlowPart]) -> int:
        """What waits for others: a write for each bundle."""
        count = 0
        for start in range(0, len(parts), OPS_MAX):
            some = parts[start : start + OPS_MAX]
            answers = (await self._ledger.commit(Txn((), tuple(
                Get(self._keys.awaits(part.queue, part.bundle)) for part in some
            )))).answers
            writes = []
            for records in answers:
                token = awaiting_at(self._keys, records[0]) if records else None
                if isinstance(token, Awaiting):
                    write = await self._discards.waiting((self._member,), records[0], token, why=CANCELLED)
                    if write is not None:
                        writes.append((token.pending, self._commits.submit(write)))
            for pending, future in writes:
                if (await future).applied:
                    count += pending
        return count

    async def retry(self, flow: str) -> FlowDone:
        """Run again what is in the failed set."""
        known: Known = await self._status.known(flow)
        failed = [
            job_id(part.bundle, index)
            for part, now in zip(known.parts, await self._status.states(known), strict=True)
            for index, state in enumerate(now) if state == "failed"
        ]
        if known.is_over or not failed:
            return FlowDone()
        name = await self._operations.begin("retry", FailedFilter(ids=failed[:NAMED_MAX]))
        await bulk.until_over(self._ledger, self._keys, name, TURN_S)       # (it goes on whatever becomes of us)
        return FlowDone(len(failed[:NAMED_MAX]), 0, len(failed[NAMED_MAX:]))


def _goes_on(state: str) -> bool:
    return state not in ("ok", "cancelled", "failed")

