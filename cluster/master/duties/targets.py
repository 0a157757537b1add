"""What a bulk operation is about: the failed jobs, tokens and claims that it names, as they lie there now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

from rota.client.ids import parse_job_id

from ...ledger.ledger import Get, Ledger, Record, Txn
from ...ledger.scan import scan
from ...state.heads import read_heads
from ...state.keys import Keys, split_job
from ...state.records import (
    FailedRecord,
    OperationRecord,
    QueueRecord,
    Token,
    claim_in,
    decode,
    failed_at,
    failure_in,
    waiting_at,
)
from ...state.words import Words

READ_MAX = 40
"""Jobs that are looked up by their ids at a time."""


class Target(msgspec.Struct, frozen=True, gc=False):
    """What a step of an operation is about: a record, and how many jobs it stands for."""

    record: Record
    what: FailedRecord | Token
    jobs: int


class Targets:
    """Those of one operation."""

    def __init__(self, ledger: Ledger, keys: Keys, words: Words, operation: OperationRecord) -> None:
        self._ledger = ledger
        self._keys = keys
        self._words = words
        self._wanted = {parse_job_id(job) for job in operation.which.ids}

    async def of(self, operation: OperationRecord, asked_at: int) -> AsyncIterator[Target]:
        """`asked_at`: nodes were asked at this revision to stop what they held."""
        self._operation, self._asked_at = operation, asked_at
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
                for prefix in (jobs, self._keys.scheduled, self._keys.awaiting, self._keys.claims):
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
        for start in range(0, len(wanted), READ_MAX):
            part = wanted[start : start + READ_MAX]
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
        for head in await read_heads(self._ledger, self._keys, self._words, serial):
            token = head.token
            fits = which.task in ("", token.task) and which.error in token.error
            if self._wanted and (head.bundle, head.index) not in self._wanted:
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
