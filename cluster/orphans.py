"""A claim whose runners are dead, and whose jobs must not be run again: what has no outcome goes to the failed set.

That is so after the third loss of a suspect, and for tasks with `on_orphan="fail"` whose claim says it was started.
"""

from __future__ import annotations

import msgspec

from rota.client.codec import decode_header, slice_body

from .clock import Clock
from .keys import Keys, whole
from .ledger.commits import Write, unmodified
from .ledger.ledger import Delete, Guard, Ledger, Put, Record
from .quarantine import ADVICE
from .records import Claim, FailedRecord, Failure, encode, token_of


async def fail_orphan(
    ledger: Ledger, keys: Keys, clock: Clock, guards: tuple[Guard, ...], record: Record, claim: Claim, node: str,
    bundle: str, reason: str = "lost",
) -> Write:
    """A bundle holds at most 60 jobs: with two puts each, that fits one transaction. In a serial queue the job stays at
    its place, and blocks it."""
    guards = (*guards, unmodified(record.key, record.mod_revision))
    if claim.serial and reason == "lost":
        token = msgspec.structs.replace(token_of(claim), blocked=True, error=ADVICE[reason])
        place = keys.job(token.queue, token.priority, token.order, bundle)
        return Write(guards, (Delete(record.key), Put(place, encode(token))))
    page = await ledger.read(keys.body(bundle))
    body = page.records[0].value if page.records else b""
    indexes = [0]
    if body:
        done = claim.done_bits
        indexes = [index for index in decode_header(body)[0].indexes if not done >> index & 1]
    ops: list[Put | Delete] = [Delete(record.key), Delete(keys.body(bundle))]
    for index in indexes:
        failed = FailedRecord(
            f"{whole(bundle)}/{index}", claim.task, claim.queue, ADVICE[reason], claim.attempt, node, clock.wall(),
            reason,
        )
        failure = Failure(slice_body(body, [index]) if body else b"", "", encode(token_of(claim)))
        ops.append(Put(keys.failed_job(claim.queue, bundle, index), encode(failed)))
        ops.append(Put(keys.failure(bundle, index), msgspec.msgpack.encode(failure)))
    return Write(guards, tuple(ops))
