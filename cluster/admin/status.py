"""Where things are, and why they wait there: read from the store when somebody asks. Nothing is kept for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from rota.client.calls.signature import shown, signature_of
from rota.client.errors import InvalidJob
from rota.client.ids import job_id
from rota.client.wire.keyring import Seal
from rota.client.wire.views import FailedView, FinishedView, NodeView, OperationView, StatsView, TaskView

from ..clock import Clock
from ..ledger.ledger import Ledger, Record
from ..ledger.scan import scan
from ..state.directory import Directory
from ..state.heads import Head, read_heads
from ..state.keys import Keys, split_job
from ..state.records import (
    FinishedRecord,
    claim_in,
    decode,
    failed_at,
)
from ..state.words import Words
from . import bulk
from .counts import Counts, records_of
from .flows import FlowStatus
from .jobs import Here, Jobs, Nowhere
from .listing import Listing
from .queue_part import QueueParts, in_words
from .reasons import Reasons
from .strides import Known
from .watching import Watching

LIST_PAGE = 1_000
RATE_S = 10
STATS_QUEUES_MAX, STATS_READ_MAX = 1_000, 20_000


class Status:
    def __init__(
        self, ledger: Ledger, keys: Keys, clock: Clock, directory: Directory, seal: Seal,
        here: Here | None = None,
    ) -> None:
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self._directory = directory
        words = self._words = Words(seal)
        self.known = Known()
        self.listing = Listing(ledger, keys, clock, directory, words, here or Nowhere(), self.known)
        self.queue_parts = QueueParts(ledger, keys, clock, directory, words, self.known)
        reasons = Reasons(ledger, keys, clock, directory, words, seal)
        self.jobs = Jobs(ledger, keys, directory, reasons, seal, here or Nowhere())
        self.flows = FlowStatus(ledger, keys)
        self.watching = Watching(self.jobs, ledger, keys, clock)
        self._samples: deque[tuple[float, int, int]] = deque(maxlen=RATE_S + 1)

    async def run(self, counters: Callable[[], tuple[int, int]]) -> None:
        """Sample this node's counters (enqueued, finished) once a second, for rates."""
        while True:
            self._samples.append((self._clock.monotonic(), *counters()))
            await asyncio.sleep(1.0)

    # -- all of them -------------------------------------------------------------------------------------------------

    async def nodes(self) -> list[NodeView]:
        views = []
        for node, member in sorted(self._directory.members.items()):
            claims = 0
            async for record in scan(self._ledger, self._keys.claims_of(node)):
                claim = claim_in(record.value)
                claims += claim.pending if claim is not None else 0
            views.append(NodeView(
                node, member.address, member.state, node == self._directory.master, member.queues,
                sorted(member.tasks), member.capacity, claims, member.python, member.version, member.since, member.keys,
                member.labels,
            ))
        return views

    def tasks(self) -> list[TaskView]:
        """All that were ever registered, by name."""
        members = self._directory.members
        views = []
        for name, record in sorted(self._directory.tasks.items()):
            signature = signature_of(record.parameters) if record.parameters is not None else None
            views.append(TaskView(
                name, record.mode, record.queue, shown(signature) if signature is not None else "",
                record.max_concurrency, record.max_per_key,
                sorted(node for node, member in members.items() if name in member.tasks), record.parameters,
                in_words(record.rate), in_words(record.rate_per_key), record.requires, record.weight,
            ))
        return views

    async def _blocking(self, queue: str | None) -> list[Head]:
        """The heads that block their serial queue: of all, or of one."""
        serial = [name for name, record in self._directory.queues.items() if record.serial and queue in (None, name)]
        heads = await read_heads(self._ledger, self._keys, self._words, sorted(serial))
        return [head for head in heads if head.token.blocked]

    async def failed(self, queue: str | None, limit: int, after: str = "") -> tuple[list[FailedView], str]:
        """The failed set by queue and bundle, from behind `after`; before it, what blocks a serial queue. Returns what
        to go on after, too: "" at the end."""
        views = []
        if not after:
            views = [
                FailedView(
                    head.job, head.token.task, head.queue, head.token.error, head.token.attempt, "", 0.0, "blocked"
                )
                for head in (await self._blocking(queue))[:limit]
            ]
        last = ""
        async for record in self._part(self._keys.failed, queue, after):
            if len(views) >= limit:
                return views, last
            last = record.key[len(self._keys.failed):].decode(errors="replace")
            failed = failed_at(self._keys, record)
            if failed is not None:
                failed = self._words.heard_failed(failed)
                views.append(FailedView(
                    job_id(*split_job(failed.id)), failed.task, failed.queue, failed.error, failed.attempts,
                    failed.node, failed.at, failed.reason,
                ))
        return views, ""

    async def finished(self, queue: str | None, limit: int, after: str = "") -> tuple[list[FinishedView], str]:
        """Jobs that ended well and are kept, by queue and bundle; as `failed`. Of a bundle all or none are shown."""
        views: list[FinishedView] = []
        last = ""
        async for record in self._part(self._keys.finished, queue, after):
            if len(views) >= limit:
                return views, last
            last = record.key[len(self._keys.finished):].decode(errors="replace")
            kept = decode(FinishedRecord, record.value)
            if kept is not None:
                views += [
                    FinishedView(
                        job_id(kept.bundle, index), kept.task, kept.queue, kept.attempts, kept.node, kept.at,
                        kept.enqueued_at or None,
                    )
                    for index in kept.indexes
                ]
        return views, ""

    def _part(self, area: bytes, queue: str | None, after: str) -> AsyncIterator[Record]:
        """The records of one queue, or of all, behind a key of the same area."""
        prefix = area if queue is None else area + f"{queue}/".encode()
        key = area + after.encode() if after else b""
        if key and not key.startswith(prefix):
            raise InvalidJob(f"after={after[:200]!r} is not in queue {queue}: take it from the answer before, as it is")
        return scan(self._ledger, prefix, after=key, size=LIST_PAGE)

    async def operation(self, name: str, wait_s: float) -> OperationView:
        """A bulk operation, when it has ended or after so many seconds. Raises `OperationUnknown`."""
        return await bulk.until_over(self._ledger, self._keys, name, wait_s)

    async def operations(self) -> list[OperationView]:
        return await bulk.listed(self._ledger, self._keys)

    async def stats(self) -> StatsView:
        """Of more than a thousand queues totals are at least as many as there are records."""
        counts = Counts(
            self._ledger, self._keys, self._clock, queues_max=STATS_QUEUES_MAX, read_max=STATS_READ_MAX,
            known=self.known,
        )
        await counts.count()
        records = await records_of(self._ledger, self._keys) if counts.at_least else {}
        rows = list(counts.rows.values())
        ages = [row.oldest_s for row in rows if row.oldest_s is not None]
        totals = {
            field: max(sum(getattr(row, field) for row in rows), records.get(field, 0))
            for field in ("waiting", "claimed", "scheduled", "failed", "awaiting")
        }
        enqueued_per_s, finished_per_s = self._rates()
        return StatsView(
            self._directory.revision, self._directory.master, len(self._directory.members), totals["waiting"],
            totals["claimed"], totals["scheduled"], totals["failed"], max(ages, default=None), enqueued_per_s,
            finished_per_s, sorted(counts.at_least), totals["awaiting"],
        )

    def _rates(self) -> tuple[float, float]:
        if len(self._samples) < 2:
            return 0.0, 0.0
        (t0, enqueued0, finished0), (t1, enqueued1, finished1) = self._samples[0], self._samples[-1]
        span = max(t1 - t0, 1e-9)
        return round(max(enqueued1 - enqueued0, 0) / span, 1), round(max(finished1 - finished0, 0) / span, 1)
