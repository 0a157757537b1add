"""Bulk operations: retry or delete many failed jobs, empty a queue, cancel many jobs. The master carries them out.

Each is a record below `operations/`, written by the node that was asked, and all that a new master needs: what it is
about is fixed by the revision at which it began, every write is guarded by the job as it lay there (and by the record,
and the fence), so whatever was done before is not done again. Several at once hinder nobody: who comes first does it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import msgspec

from rota.client.codec import Seal
from rota.client.errors import LeaseGone, LedgerError, NoSpace
from rota.client.ids import parse_job_id

from ..clock import Clock
from ..events.hub import Events
from ..events.records import BulkEnded, BulkStarted
from ..ledger.buckets import Buckets
from ..ledger.commits import Commits, Verdict, Write, created, unmodified
from ..ledger.ledger import Changes, Condition, Delete, Get, Ledger, Put, Record, Txn
from ..ledger.scan import scan
from ..state import failures, moves
from ..state.discarding import Discards
from ..state.heads import read_heads
from ..state.keys import Keys, split_job
from ..state.records import (
    FailedRecord,
    OperationRecord,
    QueueRecord,
    Token,
    claim_in,
    decode,
    encode,
    failed_at,
    failure_in,
    operation_in,
    waiting_at,
)
from ..state.uniques import Holder, look
from ..state.words import Words

AT_ONCE_MAX = 4
"""Operations under way at a time; others wait for their turn."""

BATCH = 40
"""Jobs (or bundles) of which the writes are made together: their arguments are in memory then."""

BATCHES_AHEAD = 4
"""Batches under way at a time: so many transactions keep etcd's disk busy."""

LOOKS_MAX = 5
"""How often an operation looks for what has moved meanwhile."""

SAVE_S = 0.5
"""How often an operation says how far it has come."""

AGAIN_S = 1.0
"""After this it goes on if the store did not take what it wrote."""

KEEP_S = 3600.0
"""How long one that has ended can be asked for."""


class Target(msgspec.Struct, frozen=True, gc=False):
    """What a step of an operation is about: a record, and how many jobs it stands for."""

    record: Record
    what: FailedRecord | Token
    jobs: int


class Bulk:
    """One term's. `on_deposed` is called when the fence does not hold any more."""

    def __init__(
        self, ledger: Ledger, keys: Keys, clock: Clock, fence: Condition, seal: Seal, rng: random.Random, *,
        events: Events, on_deposed: Callable[[], None], node: str,
    ) -> None:
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self._fence = fence
        self._buckets = Buckets(ledger, clock, rng)
        self._discards = Discards(ledger, keys, seal, self._buckets)
        self.words = Words(seal)
        self._events = events
        self._on_deposed = on_deposed
        self._node = node
        self._waiting: dict[bytes, None] = {}       # keys of operations, in the order in which they came
        self._at_work: set[bytes] = set()
        self._more = asyncio.Event()

    def see(self, changes: Changes) -> None:
        for event in changes.events:
            key = event.record.key
            if key.startswith(self._keys.operations) and not event.deleted and key not in self._at_work:
                self._waiting[key] = None
                self._more.set()

    async def run(self) -> None:
        """Carry out what there is and what comes, a few at a time."""
        found = [record async for record in scan(self._ledger, self._keys.operations, keys_only=True)]
        for record in sorted(found, key=lambda record: record.create_revision):
            self._waiting[record.key] = None
        async with Commits(self._ledger) as commits, asyncio.TaskGroup() as group:
            self._commits = commits
            while True:
                while self._waiting and len(self._at_work) < AT_ONCE_MAX:
                    key = next(iter(self._waiting))
                    del self._waiting[key]
                    self._at_work.add(key)
                    group.create_task(self._until_over(key), name="bulk-operation")
                self._more.clear()
                await self._more.wait()

    async def _until_over(self, key: bytes) -> None:
        try:
            while True:
                try:
                    await self._carry_out(key)
                    return
                except LedgerError:         # a passing fault of the store is no outcome: go on from what is there
                    await asyncio.sleep(AGAIN_S)
        finally:
            self._at_work.discard(key)
            self._more.set()

    async def _carry_out(self, key: bytes) -> None:
        page = await self._ledger.read(key)
        record = page.records[0] if page.records else None
        if record is None:
            return
        operation = operation_in(record.value)
        if operation is None:
            self._events.emit(BulkEnded(_name(key), "unknown", 0, "its record cannot be read"))
            await self._commits.write((self._fence, unmodified(key, record.mod_revision)), (Delete(key),))
            return
        at_work = _AtWork(self, record, operation, page.revision)
        try:
            await (at_work.begin() if operation.state == "waiting" else at_work.resume())
        finally:
            at_work.cancel()

    async def submit(self, writes: list[Write]) -> list[Verdict | BaseException]:
        verdicts = await asyncio.gather(*map(self._commits.submit, writes), return_exceptions=True)
        for verdict in verdicts:
            if isinstance(verdict, Verdict) and verdict.failed is not None and verdict.failed.key == self._fence.key:
                self._on_deposed()
                await asyncio.Future()      # the term is over
            if isinstance(verdict, NoSpace | LeaseGone):
                self._buckets.drop_all()
                raise verdict
        return list(verdicts)


class _AtWork:
    """One operation, being carried out."""

    def __init__(self, bulk: Bulk, record: Record, operation: OperationRecord, revision: int) -> None:
        self._bulk = bulk
        self._ledger, self._keys, self._clock = bulk._ledger, bulk._keys, bulk._clock
        self._key = record.key
        self._mod_revision = record.mod_revision
        self._now = revision
        self._operation = operation
        self._conditions = (bulk._fence, created(record.key, record.create_revision))
        self._wanted = {parse_job_id(job) for job in operation.which.ids}
        self._saved_at = self._clock.monotonic()
        self._missed = 0
        self._asked_at = 0
        self._under_way: set[asyncio.Task[None]] = set()

    async def begin(self) -> None:
        self._change(since=self._now)
        total = await self._count()
        which, expected = self._operation.which, self._operation.expected
        if expected is not None and total != expected:
            await self._refuse(
                f"queue {which.queue} has {total:,} waiting jobs, not {expected:,}: look again before it is emptied"
            )
        elif not total and which.ids:
            await self._refuse(f"not in the failed set: {', '.join(which.ids[:5])}")
        elif not total and not which.all and self._operation.verb != "empty":
            kind = "failed job" if self._operation.verb in ("retry", "delete") else "job"
            await self._refuse(f"no {kind} fits {which.words}: nothing was done")
        else:
            self._change(state="running", total=total, node=self._bulk._node)
            await self._save()
            self._bulk._events.emit(BulkStarted(_name(self._key), self._operation.verb, which.words, total))
            await self._work()

    async def resume(self) -> None:
        """Another master (or we, before the store was away) has begun it: what is gone of its jobs has been done."""
        left_over = await self._count()
        self._change(done=max(0, self._operation.total - left_over), left=0, node=self._bulk._node)
        await self._save()
        await self._work()

    async def _count(self) -> int:
        return sum([target.jobs async for target in self._targets()])

    async def _work(self) -> None:
        """What moves while it is looked at (it is split, given to a node, handed back) is met by the next look."""
        unable = 0
        for _ in range(LOOKS_MAX):
            self._change(left=0)
            self._missed = met = 0
            looked_at = (await self._ledger.read(self._key, keys_only=True)).revision
            async for batch in self._batches():
                met += len(batch)
                await self._begin(batch)
            await self._settled(0)
            self._asked_at = looked_at
            all_met = not met or self._operation.done + self._operation.left >= self._operation.total
            if all_met and not self._missed and self._operation.left == unable:
                break
            unable = self._operation.left
        self._change(left=self._operation.left + self._missed)
        await self._end()

    async def _batches(self) -> AsyncIterator[list[Target]]:
        batch: list[Target] = []
        async for target in self._targets():
            batch.append(target)
            if len(batch) == BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    async def _begin(self, batch: list[Target]) -> None:
        """Beside those under way, if they are not too many."""
        await self._settled(BATCHES_AHEAD - 1)
        self._under_way.add(asyncio.create_task(self._do(batch), name="bulk-batch"))

    async def _settled(self, but: int) -> None:
        """All batches but so many are done."""
        while len(self._under_way) > but:
            done, self._under_way = await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    def cancel(self) -> None:
        for task in self._under_way:
            task.cancel()

    async def _do(self, batch: list[Target]) -> None:
        made = await asyncio.gather(*map(self._write, batch))
        deeds = [(target, write) for target, write in zip(batch, made, strict=True) if write is not None]
        verdicts = await self._bulk.submit([write for _, write in deeds])
        tried = sum(target.jobs for target, _ in deeds)
        done = sum(
            target.jobs for (target, _), verdict in zip(deeds, verdicts, strict=True)
            if isinstance(verdict, Verdict) and verdict.applied
        )
        self._missed += tried - done
        unable = sum(target.jobs for target in batch) - tried
        self._change(done=self._operation.done + done, left=self._operation.left + unable)
        if self._clock.monotonic() >= self._saved_at + SAVE_S:
            await self._save()

    # -- what it is about ----------------------------------------------------------------------------------------------

    async def _targets(self) -> AsyncIterator[Target]:
        match self._operation.verb:
            case "retry":
                async for target in self._failed():
                    yield target
                async for target in self._blocking():
                    yield target
            case "delete":
                async for target in self._failed():
                    yield target
            case "empty":
                async for target in self._tokens(self._keys.queue_jobs(self._operation.which.queue)):
                    yield target
            case "cancel":
                queue = self._operation.which.queue
                jobs = self._keys.queue_jobs(queue) if queue else self._keys.jobs
                for prefix in (jobs, self._keys.scheduled, self._keys.claims):
                    async for target in self._tokens(prefix):
                        yield target

    async def _failed(self) -> AsyncIterator[Target]:
        which = self._operation.which
        async for record in self._named() if self._wanted else self._failed_set():
            failed = failed_at(self._keys, record)
            if failed is None or record.mod_revision > self._operation.since:
                continue
            if self._wanted and split_job(failed.id) not in self._wanted:
                continue
            if which.task in ("", failed.task) and which.queue in ("", failed.queue) and which.error in failed.error:
                yield Target(record, failed, 1)

    def _failed_set(self) -> AsyncIterator[Record]:
        queue = self._operation.which.queue
        return scan(self._ledger, self._keys.failed + (f"{queue}/".encode() if queue else b""))

    async def _named(self) -> AsyncIterator[Record]:
        """Failed jobs by their ids: of which queue one is, what is kept of it knows."""
        wanted = sorted(self._wanted)
        for start in range(0, len(wanted), BATCH):
            part = wanted[start : start + BATCH]
            kept = await asyncio.gather(*(self._ledger.read(self._keys.failure(*job)) for job in part))
            gets = []
            for job, page in zip(part, kept, strict=True):
                if page.records:
                    token = decode(Token, failure_in(page.records[0].value).token)
                    gets.append(Get(self._keys.failed_job(token.queue if token is not None else "unknown", *job)))
            if gets:
                for found in (await self._ledger.commit(Txn((), tuple(gets)))).answers:
                    for record in found:
                        yield record

    async def _blocking(self) -> AsyncIterator[Target]:
        """Heads of serial queues that failed for good: shown with the failed set, and retried at their place."""
        which = self._operation.which
        serial = []
        async for record in scan(self._ledger, self._keys.queues):
            queue = record.key[len(self._keys.queues):].decode(errors="replace")
            settings = decode(QueueRecord, record.value)
            if settings is not None and settings.serial and which.queue in ("", queue):
                serial.append(queue)
        for head in await read_heads(self._ledger, self._keys, self._bulk.words, serial):
            token = head.token
            fits = which.task in ("", token.task) and which.error in token.error
            if self._wanted and split_job(head.job) not in self._wanted:
                continue
            if token.blocked and fits and head.record.mod_revision <= self._operation.since:
                yield Target(head.record, token, token.pending)

    async def _tokens(self, prefix: bytes) -> AsyncIterator[Target]:
        """Of jobs that were there when it began: their order is a revision at which they were enqueued."""
        which, since = self._operation.which, self._operation.since
        async for record in scan(self._ledger, prefix):
            claimed = record.key.startswith(self._keys.claims)
            token = claim_in(record.value) if claimed else waiting_at(self._keys, record)
            if token is None or (token.order > since and record.create_revision > since) or not token.pending:
                continue
            if claimed and record.create_revision <= self._asked_at:
                continue            # its node was asked to stop it at the look before
            if which.queue in ("", token.queue) and which.task in ("", token.task):
                yield Target(record, token, token.pending)

    # -- what is done to it --------------------------------------------------------------------------------------------

    async def _write(self, target: Target) -> Write | None:
        """None: it cannot be done with this one."""
        record, conditions = target.record, self._conditions
        if isinstance(target.what, FailedRecord):
            if self._operation.verb == "delete":
                bundle, index = split_job(target.what.id)
                at = unmodified(record.key, record.mod_revision)
                return moves.delete(self._keys, conditions, at, bundle, index)
            page = await self._ledger.read(self._keys.failure(*split_job(target.what.id)))
            kept = page.records[0] if page.records else None
            order = max(self._operation.since, self._bulk._commits.revision)
            hold = None
            if (key := failures.wanted(self._keys, kept)) is not None:
                met = await look(self._ledger, self._keys, key, int(self._clock.wall() * 1000))
                if isinstance(met, Holder):
                    return None         # another job of its key is there
                hold = met
            return failures.retry(
                self._keys, self._clock, conditions, record, target.what, kept, order, hold, words=self._bulk.words
            )
        if self._operation.verb == "retry":
            return moves.retry_head(conditions, unmodified(record.key, record.mod_revision), target.what)
        if record.key.startswith(self._keys.claims):
            return await self._bulk._discards.claimed(conditions, record, target.what)
        return await self._bulk._discards.waiting(conditions, record, target.what)

    # -- what it says of itself ----------------------------------------------------------------------------------------

    def _change(self, **changes: object) -> None:
        self._operation = msgspec.structs.replace(self._operation, **changes)

    async def _save(self) -> None:
        self._saved_at = self._clock.monotonic()
        await self._put((Put(self._key, encode(self._operation)),))

    async def _refuse(self, why: str) -> None:
        self._change(state="refused", why=why)
        await self._end()

    async def _end(self) -> None:
        state = "refused" if self._operation.state == "refused" else "done"
        self._change(state=state, ended_at=round(self._clock.wall(), 3))
        lease = await self._bulk._buckets.of(KEEP_S).lease()
        name = _name(self._key)
        await self._put((
            Delete(self._key), Put(self._keys.operation_ended(name), encode(self._operation), lease)
        ))
        if state == "done":
            over = self._operation
            note = f"({over.left} were left)" if over.left else ""
            self._bulk._events.emit(BulkEnded(name, over.verb, over.done, note))

    async def _put(self, ops: tuple[Put | Delete, ...]) -> None:
        conditions = (self._bulk._fence, unmodified(self._key, self._mod_revision))
        (verdict,) = await self._bulk.submit([Write(conditions, ops)])
        if isinstance(verdict, BaseException):
            raise verdict
        if verdict.applied:
            self._mod_revision = verdict.revision
        elif verdict.found is not None:             # an earlier try of this very write
            self._mod_revision = verdict.found.mod_revision


def _name(key: bytes) -> str:
    return key.rpartition(b"/")[2].decode(errors="replace")
