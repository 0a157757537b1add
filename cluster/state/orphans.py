"""A claim whose runners are dead, and whose jobs must not be run again: what has no outcome goes to the failed set.

That is so after the third loss of a suspect, and for tasks with `on_orphan="fail"` whose claim says it was started.
"""

from __future__ import annotations

import msgspec

from rota.client.codec import Seal, decode_header, encode_results, slice_body
from rota.client.model import ResultEntry, Results

from ..clock import Clock
from ..ledger.buckets import Buckets
from ..ledger.commits import Write, unmodified
from ..ledger.ledger import Delete, Guard, Ledger, Put, Record
from .keys import Keys, whole
from .quarantine import ADVICE
from .records import Claim, FailedRecord, Failure, encode, token_of

KEEP_RESULT_S = 3600.0


class Orphans:
    """Makes the writes; `fail` reads the body first."""

    def __init__(self, ledger: Ledger, keys: Keys, clock: Clock, seal: Seal, buckets: Buckets) -> None:
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self._seal = seal
        self._buckets = buckets

    async def fail(
        self, guards: tuple[Guard, ...], record: Record, claim: Claim, node: str, bundle: str, reason: str = "lost"
    ) -> Write:
        """A bundle holds at most 60 jobs: with two puts each, that fits one transaction. In a serial queue the job
        stays at its place, and blocks it."""
        keys = self._keys
        guards = (*guards, unmodified(record.key, record.mod_revision))
        if claim.serial and reason == "lost":
            token = msgspec.structs.replace(token_of(claim), blocked=True, error=ADVICE[reason])
            place = keys.job(token.queue, token.priority, token.order, bundle)
            return Write(guards, (Delete(record.key), Put(place, encode(token))))
        page = await self._ledger.read(keys.body(bundle))
        body = page.records[0].value if page.records else b""
        indexes = [0]
        if body:
            done = claim.done_bits
            indexes = [index for index in decode_header(body)[0].indexes if not done >> index & 1]
        ops: list[Put | Delete] = [Delete(record.key), Delete(keys.body(bundle))]
        for index in indexes:
            failed = FailedRecord(
                f"{whole(bundle)}/{index}", claim.task, claim.queue, ADVICE[reason], claim.attempt, node,
                self._clock.wall(), reason,
            )
            failure = Failure(slice_body(body, [index]) if body else b"", "", encode(token_of(claim)))
            ops.append(Put(keys.failed_job(claim.queue, bundle, index), encode(failed)))
            ops.append(Put(keys.failure(bundle, index), msgspec.msgpack.encode(failure)))
        ops.append(await self._notice(record, claim, bundle, indexes, ADVICE[reason]))
        return Write(guards, tuple(ops))

    async def _notice(self, record: Record, claim: Claim, bundle: str, indexes: list[int], error: str) -> Put:
        """For whoever waits for these jobs."""
        entries = [ResultEntry(index, "failed", error=error, attempts=claim.attempt) for index in indexes]
        results = self._seal.keyring.sign_results(Results(whole(bundle), entries), self._seal.cluster)
        lease = await self._buckets.of(KEEP_RESULT_S).lease()
        return Put(self._keys.result(bundle, indexes[0], record.create_revision), encode_results(results), lease)
