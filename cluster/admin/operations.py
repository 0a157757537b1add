"""What people do to a running cluster: settings of queues, the failed set, cancelling. Any node does it, guarded by
what it saw, so that two people at once do not undo each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec

from rota.client.codec import Seal, slice_body
from rota.client.errors import InvalidJob, LedgerUnavailable
from rota.client.ids import NAME_RULE, parse_job_id
from rota.client.model import ResultEntry
from rota.client.views import FailedFilter

from ..clock import Clock
from ..ledger.buckets import Buckets
from ..ledger.commits import Commits, Verdict, Write, unmodified
from ..ledger.ledger import Condition, Delete, Ledger, Put, Record
from ..ledger.scan import scan
from ..state import moves
from ..state.keys import Keys, is_name
from ..state.quarantine import ADVICE
from ..state.records import (
    FailedRecord,
    QueueRecord,
    Token,
    decode,
    encode,
    failed_at,
    failure_in,
    header_of,
    waiting_at,
)
from ..state.splitting import piece_name
from .status import Status

PAGE = 500
TRIES_MAX = 50
CANCEL_S = 3600.0
"""How long a request to cancel stays in the store; the node that holds the job acts on it within milliseconds."""


class Operations:
    """One identity's. Raises `InvalidJob` for what makes no sense, `LedgerError` where the store does not take it."""

    def __init__(
        self, ledger: Ledger, commits: Commits, keys: Keys, clock: Clock, status: Status, member: Condition,
        buckets: Buckets, seal: Seal, newest: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._commits = commits
        self._keys = keys
        self._clock = clock
        self._status = status
        self._member = member
        self._buckets = buckets
        self._seal = seal
        self._newest = newest

    # -- queues ------------------------------------------------------------------------------------------------------

    async def set_queue(self, queue: str, changes: dict[str, object]) -> QueueRecord:
        """Change settings of a queue (`paused`, `serial`, `max_concurrency`); returns them all."""
        if not is_name(queue):
            raise InvalidJob(f"{queue[:200]!r} is not a valid queue name: {NAME_RULE}")
        unknown = sorted(changes.keys() - {"paused", "serial", "max_concurrency"})
        if unknown:
            raise InvalidJob(f"a queue has no setting {', '.join(unknown)}; it has paused, serial and max_concurrency")
        key = self._keys.queue(queue)
        for _ in range(TRIES_MAX):
            page = await self._ledger.read(key)
            old = page.records[0] if page.records else None
            record = (decode(QueueRecord, old.value) if old is not None else None) or QueueRecord()
            if (most := changes.get("max_concurrency")) is not None and most in (0, False):
                raise InvalidJob(f"queue {queue}: max_concurrency is at least 1; to stop a queue, pause it")
            try:
                new = msgspec.convert(msgspec.to_builtins(record) | changes, QueueRecord)
            except msgspec.ValidationError as error:
                raise InvalidJob(f"queue {queue}: {error}") from None
            condition = unmodified(key, old.mod_revision if old is not None else 0)
            op: Put | Delete = Put(key, encode(new)) if new != QueueRecord() else Delete(key)
            if old is None and isinstance(op, Delete):
                return new
            if (await self._commits.write((self._member, condition), (op,))).applied:
                return new
        raise LedgerUnavailable(f"the settings of queue {queue} are being changed by others all the time")

    async def empty(self, queue: str, expected: int | None) -> int:
        """Delete every waiting job of a queue; who waits for one is told that it was cancelled. `expected`: the number
        of jobs its owner believes there are; unless it is right, nothing is deleted."""
        waiting = [record async for record in scan(self._ledger, self._keys.queue_jobs(queue), size=PAGE)]
        tokens = [(record, token) for record in waiting if (token := waiting_at(self._keys, record)) is not None]
        jobs = sum(token.pending for _, token in tokens)
        if expected is not None and jobs != expected:
            raise InvalidJob(f"queue {queue} has {jobs} waiting jobs, not {expected}: look again before it is emptied")
        emptied = 0
        for start in range(0, len(tokens), PAGE):
            part = tokens[start : start + PAGE]
            verdicts = await asyncio.gather(*[self._discard(record, token) for record, token in part])
            emptied += sum(
                token.pending for (_, token), verdict in zip(part, verdicts, strict=True)
                if verdict is not None and verdict.applied
            )
        return emptied

    async def head(self, queue: str, verb: str) -> str:
        """Of a serial queue's head: `retry` it now, or `skip` it (to the failed set). Returns its id."""
        async for record in scan(self._ledger, self._keys.queue_jobs(queue), size=PAGE):
            token, place = waiting_at(self._keys, record), self._keys.parse_job(record.key)
            if place is None:
                continue
            if token is None or not (token.blocked or token.not_before or token.attempt > 1):
                break
            bundle = place.bundle
            body = await self._body(bundle) if verb == "retry" else await self._body_if_any(bundle)
            header = header_of(body)
            indexes = header.indexes if header is not None else [int(bundle.partition(".")[2] or 0)]
            index = next((index for index in indexes if not token.done_bits >> index & 1), indexes[0])
            at = unmodified(record.key, record.mod_revision)
            if verb == "retry":
                write = moves.retry_head((self._member,), at, token)
            else:
                skipped = self._skipped(token, bundle, index, body if header is not None else b"")
                write = moves.skip_head(self._keys, (self._member,), at, bundle, skipped)
            if (await self._commits.submit(write)).applied:
                return f"{bundle.partition('.')[0]}/{index}"
            break
        raise InvalidJob(f"the head of queue {queue} has not failed: there is nothing to {verb}")

    def _skipped(self, token: Token, bundle: str, index: int, body: bytes) -> moves.Ops:
        part = slice_body(body, [index]) if body else b""       # of its siblings nothing is left to run
        return moves.fail(
            self._keys, bundle, index, token, body=part, error=token.error or "skipped", at_s=self._clock.wall(),
            reason="skipped",
        )

    async def _body(self, bundle: str) -> bytes:
        body = await self._body_if_any(bundle)
        if not body:
            raise InvalidJob(ADVICE["body missing"])
        return body

    async def _body_if_any(self, bundle: str) -> bytes:
        page = await self._ledger.read(self._keys.body(bundle))
        return page.records[0].value if page.records else b""

    # -- the failed set ----------------------------------------------------------------------------------------------

    async def retry_failed(self, which: FailedFilter) -> int:
        """Run failed jobs again, as new attempts from the first; returns how many were put back."""
        return await self._each_failed(which, self._retry_one)

    async def delete_failed(self, which: FailedFilter) -> int:
        return await self._each_failed(which, self._delete_one)

    async def _each_failed(
        self, which: FailedFilter, make: Callable[[Record, FailedRecord, Record | None], Write | None]
    ) -> int:
        done = found = 0
        async for batch in self._failed_batches(which):
            found += len(batch)
            failures = await asyncio.gather(*[self._failure_of(failed) for _, failed in batch])
            writes = [
                make(record, failed, failure)
                for (record, failed), failure in zip(batch, failures, strict=True)
            ]
            verdicts = await asyncio.gather(*[self._commits.submit(write) for write in writes if write is not None])
            done += sum(verdict.applied for verdict in verdicts)
        if not found and which.ids:
            raise InvalidJob(f"not in the failed set: {', '.join(which.ids[:5])}")
        if not found and not which.all:
            said = {"queue": which.queue, "task": which.task, "error": which.error}
            words = ", ".join(f"{name} {value!r}" for name, value in said.items() if value)
            raise InvalidJob(f"no failed job fits {words}: nothing was done")
        return done

    async def _failed_batches(self, which: FailedFilter) -> AsyncIterator[list[tuple[Record, FailedRecord]]]:
        prefix = self._keys.failed + (f"{which.queue}/".encode() if which.queue else b"")
        wanted = set(which.ids)
        batch: list[tuple[Record, FailedRecord]] = []
        async for record in scan(self._ledger, prefix, size=PAGE):
            failed = failed_at(self._keys, record)
            if failed is None or (wanted and failed.id not in wanted) or (which.task and failed.task != which.task):
                continue
            if which.error and which.error not in failed.error:
                continue
            batch.append((record, failed))
            if len(batch) == 40:
                yield batch
                batch = []
        if batch:
            yield batch

    async def _failure_of(self, failed: FailedRecord) -> Record | None:
        bundle, _, index = failed.id.rpartition("/")
        page = await self._ledger.read(self._keys.failure(bundle, int(index)))
        return page.records[0] if page.records else None

    def _retry_one(self, record: Record, failed: FailedRecord, failure: Record | None) -> Write | None:
        if failure is None:
            return None
        kept = failure_in(failure.value)
        bundle, _, index = failed.id.rpartition("/")
        header, said = header_of(kept.body), decode(Token, kept.token)
        if header is None or header.bundle != bundle:
            return None         # there is nothing that could be run
        name = piece_name(bundle, [int(index)])
        order = self._newest()
        token = Token(          # what the body says is signed, what its token said may be why it was set aside
            header.task, header.queue, said.priority if said else 0, order, 1, header.mode,
            int(self._clock.wall() * 1000), python=header.python, function=header.function,
            key=said.key if said else "", signed=said.signed if said else header.key_id,
        )
        at = unmodified(record.key, record.mod_revision)
        return moves.revive(self._keys, (self._member,), at, failure.key, name, token, kept.body)

    def _delete_one(self, record: Record, failed: FailedRecord, failure: Record | None) -> Write:
        bundle, _, index = failed.id.rpartition("/")
        at = unmodified(record.key, record.mod_revision)
        return moves.delete(self._keys, (self._member,), at, bundle, int(index))

    # -- cancelling --------------------------------------------------------------------------------------------------

    async def cancel(self, job_id: str) -> str:
        """Cancel a job wherever it is: `cancelled` (it had not begun), `requested` (a node holds it: it stops it, or
        has ended it), or `ended`."""
        try:
            bundle, index = parse_job_id(job_id)
        except ValueError as error:
            raise InvalidJob(str(error)) from None
        for _ in range(TRIES_MAX):
            view, record = await self._status.find(bundle, index)
            if record is None:
                if view.place in ("finished", "failed"):
                    return "ended"
                raise InvalidJob(f"job {job_id} is unknown: it was never enqueued here, or it has ended")
            if record.key.startswith(self._keys.claims):
                await self._request(bundle, index)
                return "requested"
            token = waiting_at(self._keys, record)
            if token is None:
                raise InvalidJob(f"the token of job {job_id} cannot be read")
            verdict = await self._discard(record, token, index)
            if verdict is not None and verdict.applied:
                return "cancelled"
        raise LedgerUnavailable(f"job {job_id} moves from place to place: try again")

    async def _request(self, bundle: str, index: int) -> None:
        key = self._keys.cancel(bundle, index)
        lease = await self._buckets.of(CANCEL_S).lease()
        await self._commits.write((self._member,), (Put(key, b"{}", lease),))

    async def _discard(self, record: Record, token: Token, index: int | None = None) -> Verdict | None:
        """Take one job (or all) out of a waiting token, and tell who waits for it. None: the job is not in there. Body
        and token are read one after the other, and a split meanwhile leaves other jobs under the same name."""
        bundle = record.key.rpartition(b"/")[2].decode()
        header = header_of(await self._body_if_any(bundle))
        pending = [i for i in header.indexes if not token.done_bits >> i & 1] if header is not None else []
        if index is not None and index not in pending:
            return None
        gone = pending if index is None else [index]
        told: list[Put] = []
        if gone:
            entries = [ResultEntry(i, "cancelled", error="cancelled", attempts=token.attempt) for i in gone]
            lease = await self._buckets.of(CANCEL_S).lease()
            told = [moves.result(self._keys, self._seal, bundle, entries, record.mod_revision, lease)]
        at = unmodified(record.key, record.mod_revision)
        if len(gone) == len(pending):       # (of a body that cannot be read, all goes, whatever it was)
            write = moves.cancel(self._keys, (self._member,), at, bundle, told)
        else:
            write = moves.cancel_some((self._member,), at, token, gone, told)
        return await self._commits.submit(write)
