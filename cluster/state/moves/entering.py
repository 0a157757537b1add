"""Moves of what is not in the store yet."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ...ledger.commits import Write, created
from ...ledger.ledger import Condition, Put
from ..keys import Keys
from ..records import Awaiting, BoundRecord, Claim, ReceiptRecord, Token, encode
from ..schedules import ScheduleRecord
from ..uniques import Hold
from .ops import Conditions, moved_tail, put_awaiting, put_held, put_scheduled, put_waiting


def enqueue(
    keys: Keys, who: Conditions, bundle: str, token: Token, body: bytes, digest: str, receipt_lease: int, *,
    due_ms: int | None = None, tail: Condition | None = None, hold: Hold | None = None, bound: Bound | None = None,
) -> Write:
    """Store a bundle: in its queue, among the scheduled until `due_ms`, or (`Awaiting`) among those that wait for
    others. The receipt says that it happened, so that a repeat is told from a first time. `tail`: of a serial queue, as
    it was seen: the bundle is its new end. `hold`: the key that it has for itself. `bound`: of a queue that takes so
    many only, as it was counted."""
    receipt = _receipt(keys, bundle, token, digest, receipt_lease)
    if isinstance(token, Awaiting):
        place = put_awaiting(keys, bundle, token)
    else:
        place = put_waiting(keys, bundle, token) if due_ms is None else put_scheduled(keys, bundle, token, due_ms)
    conditions: Conditions = (*who, created(receipt.key, 0))
    ops: tuple[Put, ...] = (place, Put(keys.body(bundle), body), receipt)
    if hold is not None:
        conditions += hold.conditions
        ops += (put_held(keys, hold.at.key, bundle, place, token.at, hold.until_ms, hold.lease),)
    if bound is not None:
        conditions += (bound.at,)
        ops += (Put(bound.at.key, encode(BoundRecord(bound.enqueued + token.count))),)
    guard, moved = moved_tail(tail, token.order)
    return Write((*conditions, *guard), (*ops, *moved))


def enqueue_claimed(
    keys: Keys, who: Conditions, bundle: str, claim: Claim, node: str, body: bytes, digest: str, receipt_lease: int
) -> Write:
    """Level `delayed`: store a bundle under the node that took it, which has begun it, or is about to."""
    receipt = _receipt(keys, bundle, claim, digest, receipt_lease)
    return Write(
        (*who, created(receipt.key, 0)),
        (Put(keys.claim(node, bundle), encode(claim)), Put(keys.body(bundle), body), receipt),
    )


def enqueue_express(
    keys: Keys, who: Conditions, bundle: str, claim: Claim, node: str, body: bytes, digest: str, receipt_lease: int, *,
    ahead: Conditions,
) -> Write:
    """Store a bundle under the node that took it, which begins it when that has happened. `ahead`: nothing stands
    before it (`ahead_of_nothing`)."""
    write = enqueue_claimed(keys, who, bundle, claim, node, body, digest, receipt_lease)
    return Write((*write.conditions, *ahead), write.ops)


class Bound(msgspec.Struct, frozen=True, gc=False):
    """How many jobs were ever enqueued to a queue, as it was seen."""

    at: Condition
    enqueued: int


class Fired(msgspec.Struct, frozen=True, gc=False):
    """The job of one tick of a schedule. `due_ms`: later than now, where its schedule says so."""

    bundle: str
    token: Token
    body: bytes
    due_ms: int | None = None


def fire(
    keys: Keys, who: Conditions, at: Condition, schedule: ScheduleRecord, jobs: Sequence[Fired], *,
    tail: Condition | None = None,
) -> Write:
    """Advance a schedule and store the jobs of its ticks. `at`: the schedule as it was seen. A job's name follows from
    its tick, and the schedule only goes forward: so each is stored once. `tail`: as in `enqueue`."""
    ops: list[Put] = [Put(at.key, encode(schedule))]
    for job in jobs:
        due = job.due_ms
        ops.append(
            put_waiting(keys, job.bundle, job.token) if due is None else put_scheduled(keys, job.bundle, job.token, due)
        )
        ops.append(Put(keys.body(job.bundle), job.body))
    if tail is None or not jobs:
        return Write((*who, at), tuple(ops))
    return Write((*who, at, tail), (*ops, Put(tail.key, b"%d" % jobs[-1].token.order)))


def _receipt(keys: Keys, bundle: str, token: Token, digest: str, lease: int) -> Put:
    return Put(keys.receipt(bundle), encode(ReceiptRecord(digest, token.order, token.priority, token.count)), lease)
