"""Where things are, and why they wait there: read from the store when somebody asks. Nothing is kept for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from msgspec.structs import replace

from rota.client.codec import slice_body
from rota.client.errors import InvalidJob, JobUnknown
from rota.client.ids import parse_job_id
from rota.client.views import FailedView, FinishedView, JobView, NodeView, OperationView, Place, QueueView, StatsView

from ..clock import Clock
from ..ledger.ledger import Get, Ledger, Record, Txn, prefix_end
from ..ledger.scan import scan
from ..state.directory import Directory
from ..state.heads import Head, read_heads
from ..state.keys import Keys
from ..state.records import (
    FinishedRecord,
    ReceiptRecord,
    Token,
    claim_in,
    decode,
    failed_at,
    failure_in,
    header_of,
    results_in,
    waiting_at,
)
from . import bulk
from .counts import Counts
from .reasons import Reasons

LIST_PAGE = 1_000
TOKENS_MAX = 400_000
"""Keys that are looked through for a token that is not where it was first put."""

RATE_S = 10


class Status:
    def __init__(self, ledger: Ledger, keys: Keys, clock: Clock, directory: Directory) -> None:
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self._directory = directory
        self._reasons = Reasons(ledger, keys, clock, directory)
        self._samples: deque[tuple[float, int, int]] = deque(maxlen=RATE_S + 1)

    async def run(self, counters: Callable[[], tuple[int, int]]) -> None:
        """Sample this node's counters (enqueued, finished) once a second, for rates."""
        while True:
            self._samples.append((self._clock.monotonic(), *counters()))
            await asyncio.sleep(1.0)

    # -- one job -----------------------------------------------------------------------------------------------------

    async def job(self, job_id: str) -> JobView:
        """Raises `InvalidJob` for what is not a valid job id."""
        return (await self.find(*_parse(job_id)))[0]

    async def body(self, job_id: str) -> bytes:
        """A body with the arguments of this job alone, wherever it is; they are still signed. Raises `InvalidJob` for
        what is not a valid job id, `JobUnknown` where no arguments are kept."""
        bundle, index = _parse(job_id)
        keys, body, finished = self._keys, self._keys.body(bundle), self._keys.finished_of(bundle)
        waiting, failure, ended = (await self._ledger.commit(Txn((), (
            Get(body, body + b"/"), Get(keys.failure(bundle, index)), Get(finished, prefix_end(finished)),
        )))).answers
        kept = [record.value for record in (*waiting, *ended)]
        kept += [failure_in(record.value).body for record in failure]
        for value in kept:
            header = header_of(value)
            if header is not None and index in header.indexes:
                return slice_body(value, [index])
        raise JobUnknown(
            f"no arguments of job {job_id} are stored: it was never enqueued here, or it has ended (see keep_finished)",
            job_id,
        )

    async def find(self, bundle: str, index: int) -> tuple[JobView, Record | None]:
        """Where a job is, and the token it lies in (None if it has ended, or is unknown)."""
        keys, body, results = self._keys, self._keys.body(bundle), self._keys.bundle_results(bundle)
        answers = (await self._ledger.commit(Txn((), (
            Get(body, body + b"/"), Get(results, prefix_end(results)), Get(keys.failure(bundle, index)),
            Get(keys.receipt(bundle)), Get(keys.finished_of(bundle), prefix_end(keys.finished_of(bundle))),
        )))).answers
        id_ = f"{bundle}/{index}"
        if answers[2]:
            return await self._failed_job(id_, bundle, index, answers[2][0]), None
        for record in answers[0]:
            header = header_of(record.value)
            if header is not None and index in header.indexes:
                receipt = decode(ReceiptRecord, answers[3][0].value) if answers[3] else None
                name = record.key[len(keys.bodies):].decode(errors="replace")
                token = await self._token(name, header.queue, receipt)
                if token is not None:
                    view = await self._view(id_, index, token)
                    if view.place != "finished":
                        return replace(view, enqueued_at=header.enqueued_at), token
        for record in reversed(answers[4]):
            if (kept := await self._kept(id_, index, record)) is not None:
                return kept, None
        ended = self._ended(id_, index, answers[1])
        if ended is not None:
            return ended, None
        if answers[3] or answers[1]:
            return JobView(id_, "finished", why="it has ended, and left no result"), None
        if answers[0]:
            return JobView(id_, "unknown", why="it is moving from one place to another: ask again"), None
        return JobView(
            id_, "unknown", why="it was never enqueued here, or it ended and its result has expired"
        ), None

    def _ended(self, id_: str, index: int, records: tuple[Record, ...]) -> JobView | None:
        for record in reversed(records):
            for entry in results_in(record.value):
                if entry.index == index:
                    place = "failed" if entry.status == "failed" else "finished"
                    why = {"ok": "it ended well", "failed": "it failed", "cancelled": "it was cancelled"}[entry.status]
                    return JobView(
                        id_, place, attempt=entry.attempts, why=why, error=entry.error, traceback=entry.traceback  # type: ignore[arg-type]
                    )
        return None

    async def _kept(self, id_: str, index: int, body: Record) -> JobView | None:
        """What is known of a job whose `keep_finished` is not over."""
        header = header_of(body.value)
        if header is None or index not in header.indexes:
            return None
        name = body.key[len(self._keys.finished_bodies):]
        page = await self._ledger.read(self._keys.finished + f"{header.queue}/".encode() + name)
        kept = decode(FinishedRecord, page.records[0].value) if page.records else None
        if kept is None:
            return None
        return JobView(
            id_, "finished", kept.task, kept.queue, kept.attempts, kept.node, "it ended well",
            enqueued_at=header.enqueued_at, finished_at=kept.at,
        )

    async def _failed_job(self, id_: str, bundle: str, index: int, record: Record) -> JobView:
        failure = failure_in(record.value)
        said = decode(Token, failure.token) or header_of(failure.body)
        queue = said.queue if said is not None else "unknown"
        page = await self._ledger.read(self._keys.failed_job(queue, bundle, index))
        failed = failed_at(self._keys, page.records[0]) if page.records else None
        if failed is None:
            return JobView(id_, "failed", queue=queue, traceback=failure.traceback)
        return JobView(
            id_, "failed", failed.task, queue, failed.attempts, failed.node, "it failed: it waits for a person",
            error=failed.error, traceback=failure.traceback,
        )

    async def _token(self, name: str, queue: str, receipt: ReceiptRecord | None) -> Record | None:
        """Find a token: under a node, in its queue, or among the scheduled."""
        keys = self._keys
        gets = [Get(keys.claim(node, name)) for node in list(self._directory.members)[:100]]
        if receipt is not None:
            gets.append(Get(keys.job(queue, receipt.priority, receipt.order, name)))
        for answer in (await self._ledger.commit(Txn((), tuple(gets)))).answers if gets else ():
            if answer:
                return answer[0]
        for prefix in (keys.claims, keys.queue_jobs(queue), keys.scheduled):
            async for record in scan(self._ledger, prefix, keys_only=True, limit=TOKENS_MAX):
                if record.key.endswith(b"/" + name.encode()):
                    page = await self._ledger.read(record.key)
                    if page.records:
                        return page.records[0]
        return None

    async def _view(self, id_: str, index: int, record: Record) -> JobView:
        keys = self._keys
        if record.key.startswith(keys.claims):
            claim, parsed = claim_in(record.value), keys.parse_claim(record.key)
            if claim is None or parsed is None:
                return JobView(id_, "unknown", why="its claim cannot be read")
            if claim.done_bits >> index & 1:
                return JobView(id_, "finished", claim.task, claim.queue, claim.attempt, parsed[0], "it ended well")
            return JobView(
                id_, "claimed", claim.task, claim.queue, claim.attempt, parsed[0], "a node runs it, or is about to"
            )
        token = waiting_at(keys, record)
        if token is None:
            return JobView(id_, "unknown", why="its token cannot be read")
        if token.done_bits >> index & 1:
            return JobView(id_, "finished", token.task, token.queue, token.attempt, why="it has ended")
        if record.key.startswith(keys.scheduled):
            due = (keys.parse_due(record.key) or (0, "", ""))[0] / 1000
            place: Place = "scheduled" if token.attempt == 1 else "retrying"
            why = "it is due later" if token.attempt == 1 else f"attempt {token.attempt - 1} failed; it is tried again"
            return JobView(id_, place, token.task, token.queue, token.attempt, why=why, due=due, error=token.error)
        place, why = await self._reasons.of(record.key, token)
        return JobView(id_, place, token.task, token.queue, token.attempt, why=why, error=token.error)

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
            ))
        return views

    async def queues(self) -> list[QueueView]:
        """Those that hold jobs, and those that have settings."""
        settings = dict(self._directory.queues)
        counts = Counts(self._ledger, self._keys, self._clock)
        await counts.count()
        rows = {name: QueueView(name) for name in settings} | counts.rows
        for name, said in settings.items():
            rows[name] = replace(
                rows[name], paused=said.paused, serial=said.serial, max_concurrency=said.max_concurrency
            )
        for head in await self._blocking(None):
            error = head.token.error or "no error is known"
            why = f"job {head.job} failed for good ({error}) and blocks it: {head.advice}"
            rows[head.queue] = replace(rows[head.queue], blocked=head.job, why=why)
        return sorted(rows.values(), key=lambda row: row.queue)

    async def _blocking(self, queue: str | None) -> list[Head]:
        """The heads that block their serial queue: of all, or of one."""
        serial = [name for name, record in self._directory.queues.items() if record.serial and queue in (None, name)]
        return [head for head in await read_heads(self._ledger, self._keys, sorted(serial)) if head.token.blocked]

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
                views.append(FailedView(
                    failed.id, failed.task, failed.queue, failed.error, failed.attempts, failed.node, failed.at,
                    failed.reason,
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
                    FinishedView(f"{kept.bundle}/{index}", kept.task, kept.queue, kept.attempts, kept.node, kept.at)
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
        rows = await self.queues()
        ages = [row.oldest_s for row in rows if row.oldest_s is not None]
        enqueued_per_s, finished_per_s = self._rates()
        return StatsView(
            self._directory.revision, self._directory.master, len(self._directory.members),
            sum(row.waiting for row in rows), sum(row.claimed for row in rows), sum(row.scheduled for row in rows),
            sum(row.failed for row in rows), max(ages, default=None), enqueued_per_s, finished_per_s,
            sorted({field for row in rows for field in row.at_least}),
        )

    def _rates(self) -> tuple[float, float]:
        if len(self._samples) < 2:
            return 0.0, 0.0
        (t0, enqueued0, finished0), (t1, enqueued1, finished1) = self._samples[0], self._samples[-1]
        span = max(t1 - t0, 1e-9)
        return round(max(enqueued1 - enqueued0, 0) / span, 1), round(max(finished1 - finished0, 0) / span, 1)


def _parse(job_id: str) -> tuple[str, int]:
    try:
        return parse_job_id(job_id)
    except ValueError as error:
        raise InvalidJob(str(error)) from None
