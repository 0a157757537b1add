"""One bulk operation, being carried out.

What it is about is fixed by the revision at which it began, every write is guarded by the job as it lay there (and by
the operation's record, and the fence), so whatever was done before is not done again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec

from rota.client.errors import LeaseGone, NoSpace

from ...context import TermContext
from ...events.records import BulkEnded, BulkStarted
from ...ledger.buckets import Buckets
from ...ledger.commits import Commits, Verdict, Write, created, unmodified
from ...ledger.ledger import Delete, Put, Record
from ...state import moves, revival
from ...state.discarding import Discards
from ...state.keys import split_job
from ...state.records import FailedRecord, OperationRecord, encode
from ...state.uniques import Holder, look
from ...state.words import Words
from ..election.authority import Authority
from .ends import Ends, Entry
from .targets import Target, Targets

BATCH = 40
"""Jobs (or bundles) of which the writes are made together: their arguments are in memory then."""

BATCHES_AHEAD = 4
"""Batches under way at a time: so many transactions keep etcd's disk busy."""

LOOKS_MAX = 5
"""How often an operation looks for what has moved meanwhile."""

SAVE_S = 0.5
"""How often an operation says how far it has come."""

KEEP_S = 3600.0
"""How long one that has ended can be asked for."""


class Writer:
    """What operations write, beside what else the master does. `buckets`: leases for what is kept for a while."""

    def __init__(
        self, context: TermContext, authority: Authority, commits: Commits, buckets: Buckets, ends: Ends
    ) -> None:
        self.buckets = buckets
        self.is_serial = ends.is_serial
        self._ends = ends
        self._context = context
        self._authority = authority
        self._commits = commits

    @property
    def revision(self) -> int:
        """The newest that it has seen."""
        return self._commits.revision

    async def submit(self, writes: Sequence[Write | Entry]) -> list[Verdict | BaseException]:
        verdicts = await asyncio.gather(*(
            self._ends.enter(write) if isinstance(write, Entry) else self._commits.submit(write) for write in writes
        ), return_exceptions=True)
        for verdict in verdicts:
            failed = verdict.failed if isinstance(verdict, Verdict) else None
            if failed is not None and failed.key == self._context.fence.key:
                self._authority.depose()
                await asyncio.Future()      # the term is over
            if isinstance(verdict, NoSpace | LeaseGone):
                self.buckets.drop_all()
                raise verdict
        return list(verdicts)


class Operation:
    """One of them."""

    def __init__(
        self, context: TermContext, writer: Writer, words: Words, record: Record, operation: OperationRecord,
        revision: int,
    ) -> None:
        self._context = context
        self._ledger, self._keys, self._clock = context.ledger, context.keys, context.clock
        self._writer = writer
        self._words = words
        self._discards = Discards(context.ledger, context.keys, context.seal, writer.buckets)
        self._targets = Targets(context.ledger, context.keys, words, operation)
        self._key = record.key
        self._mod_revision = record.mod_revision
        self._now = revision
        self._operation = operation
        self._conditions = (context.fence, created(record.key, record.create_revision))
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
            self._change(state="running", total=total, node=self._context.node)
            await self._save()
            self._context.events.emit(BulkStarted(name_of(self._key), self._operation.verb, which.words, total))
            await self._work()

    async def resume(self) -> None:
        """Another master (or we, before the store was away) has begun it: what is gone of its jobs has been done."""
        left_over = await self._count()
        self._change(done=max(0, self._operation.total - left_over), left=0, node=self._context.node)
        await self._save()
        await self._work()

    async def _count(self) -> int:
        return sum([target.jobs async for target in self._targets.of(self._operation, self._asked_at)])

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
        async for target in self._targets.of(self._operation, self._asked_at):
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
        verdicts = await self._writer.submit([write for _, write in deeds])
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

    # -- what is done to it --------------------------------------------------------------------------------------------

    async def _write(self, target: Target) -> Write | Entry | None:
        """None: it cannot be done with this one."""
        record, conditions = target.record, self._conditions
        if isinstance(target.what, FailedRecord):
            if self._operation.verb == "delete":
                bundle, index = split_job(target.what.id)
                at = unmodified(record.key, record.mod_revision)
                return moves.delete(self._keys, conditions, at, bundle, index)
            page = await self._ledger.read(self._keys.failure(*split_job(target.what.id)))
            kept = page.records[0] if page.records else None
            order = max(self._operation.since, self._writer.revision)
            hold = None
            if (key := revival.wanted(self._keys, kept)) is not None:
                met = await look(self._ledger, self._keys, key, int(self._clock.wall() * 1000))
                if isinstance(met, Holder):
                    return None         # another job of its key is there
                hold = met
            again = revival.retry(
                self._keys, self._clock, conditions, record, target.what, kept, hold, words=self._words
            )
            if again is None:
                return None
            if not self._writer.is_serial(again.queue):
                return again.write(order, None)
            return Entry(again.queue, order, again.write)
        if self._operation.verb == "retry":
            return moves.retry_head(conditions, unmodified(record.key, record.mod_revision), target.what)
        if record.key.startswith(self._keys.claims):
            writes = await self._discards.claimed(conditions, record, target.what)
            await self._writer.submit(writes[:-1])
            return writes[-1] if writes else None
        return await self._discards.waiting(conditions, record, target.what)

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
        lease = await self._writer.buckets.of(KEEP_S).lease()
        name = name_of(self._key)
        await self._put((
            Delete(self._key), Put(self._keys.operation_ended(name), encode(self._operation), lease)
        ))
        if state == "done":
            over = self._operation
            note = f"({over.left} were left)" if over.left else ""
            self._context.events.emit(BulkEnded(name, over.verb, over.done, note))

    async def _put(self, ops: tuple[Put | Delete, ...]) -> None:
        conditions = (self._context.fence, unmodified(self._key, self._mod_revision))
        (verdict,) = await self._writer.submit([Write(conditions, ops)])
        if isinstance(verdict, BaseException):
            raise verdict
        if verdict.applied:
            self._mod_revision = verdict.revision
        elif verdict.found is not None:             # an earlier try of this very write
            self._mod_revision = verdict.found.mod_revision


def name_of(key: bytes) -> str:
    return key.rpartition(b"/")[2].decode(errors="replace")
