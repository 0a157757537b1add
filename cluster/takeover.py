"""Taking over the claims of a dead node: each token goes back to its place, less what its bitmap shows finished.

Guarded by the master's fence, by the absence of the member key (a node's name is never used again) and by the claim
itself. The first orphaning makes a bundle suspect; only a suspect that had been started counts as lost, and the third
loss ends in the failed set: it may be what kills its nodes.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from rota.client.codec import decode_header, slice_body

from .clock import Clock
from .keys import Keys
from .ledger.commits import Commits, Write, created, unmodified
from .ledger.ledger import Delete, Guard, Ledger, Put, Record, prefix_end
from .quarantine import ADVICE, quarantine_token
from .records import Claim, FailedRecord, Failure, decode, encode, token_of

log = logging.getLogger(__name__)

LOSSES_MAX = 3
PAGE = 500


async def take_over(
    ledger: Ledger, keys: Keys, clock: Clock, commits: Commits, fence: Guard, node: str
) -> int | None:
    """Move every claim of a dead node; returns how many, or None if the fence no longer holds."""
    absent = created(keys.node(node), 0)
    prefix = keys.claims_of(node)
    moved = 0
    while True:
        page = await ledger.read(prefix, prefix_end(prefix), limit=PAGE)
        if not page.records:
            return moved
        writes = [await _back(ledger, keys, clock, (fence, absent), record) for record in page.records]
        verdicts = await asyncio.gather(*(commits.submit(write) for write in writes))
        for verdict in verdicts:
            moved += verdict.applied
            if verdict.failed is not None and verdict.failed.key == fence.key:
                return None
            if verdict.failed is not None and verdict.failed.key == absent.key:
                log.error("node %s is a member again: its claims stay where they are", node)
                return moved


async def _back(ledger: Ledger, keys: Keys, clock: Clock, guards: tuple[Guard, ...], record: Record) -> Write:
    claim = decode(Claim, record.value)
    parsed = keys.parse_claim(record.key)
    if claim is None or parsed is None:
        return quarantine_token(keys, clock, record, guards, "unreadable")
    node, bundle = parsed
    guards = (*guards, unmodified(record.key, record.mod_revision))
    if claim.pending <= 0:
        return Write(guards, (Delete(record.key), Delete(keys.body(bundle))))
    lost = claim.lost + claim.started
    if lost >= LOSSES_MAX:
        return await _poison(ledger, keys, clock, guards, record, claim, node, bundle)
    token = msgspec.structs.replace(token_of(claim), orphanings=claim.orphanings + 1, lost=lost)
    place = keys.job(token.queue, token.priority, token.order, bundle)
    return Write(guards, (Delete(record.key), Put(place, encode(token))))


async def _poison(
    ledger: Ledger, keys: Keys, clock: Clock, guards: tuple[Guard, ...], record: Record, claim: Claim, node: str,
    bundle: str,
) -> Write:
    """A suspect runs alone, so there is one job in it."""
    page = await ledger.read(keys.body(bundle))
    body = page.records[0].value if page.records else b""
    index = 0
    if body:
        done = claim.done_bits
        index = next(index for index in decode_header(body)[0].indexes if not done >> index & 1)
        body = slice_body(body, [index])
    failed = FailedRecord(
        f"{bundle.partition('.')[0]}/{index}", claim.task, claim.queue, ADVICE["orphaned"], claim.attempt, node,
        clock.wall(), "orphaned",
    )
    failure = Failure(body, "", encode(token_of(claim)))
    return Write(
        guards,
        (
            Delete(record.key),
            Delete(keys.body(bundle)),
            Put(keys.failed_job(claim.queue, bundle, index), encode(failed)),
            Put(keys.failure(bundle, index), msgspec.msgpack.encode(failure)),
        ),
    )
