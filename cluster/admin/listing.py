"""Jobs by where they are: a part of the list at a time, and never more of the store than a part is worth."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from msgspec.structs import replace

from rota.client.errors import InvalidJob
from rota.client.ids import job_id
from rota.client.wire.views import ANY_JOB, PLACES, JobsFilter, JobsPage, JobView, Place

from ..clock import Clock
from ..ledger.ledger import Ledger, Record
from ..ledger.scan import scan
from ..state.directory import Directory
from ..state.keys import Keys, split_job, whole
from ..state.records import (
    Awaiting,
    FinishedRecord,
    RunningJob,
    RunningRecord,
    Token,
    claim_in,
    decode,
    failed_at,
    header_of,
    waiting_at,
)
from ..state.splitting import jobs_in
from ..state.words import Words
from . import jobs
from .jobs import Here
from .narrow import Narrow
from .strides import Known

LOOKED_MAX = 20_000
"""Records that are looked at for one part; where fewer jobs than were asked for fit, the list goes on behind them."""

LOOK_S = 0.06
"""And so long."""

PAGE, PAGE_MIN = 1_000, 200

SECTIONS: dict[str, tuple[Place, ...]] = {
    "running": ("running",), "claims": ("running", "claimed"), "jobs": ("waiting", "blocked", "retrying"),
    "scheduled": ("scheduled", "retrying"), "awaiting": ("awaiting",), "failed": ("failed",), "finished": ("finished",),
}
"""Parts of the store, in the order of the list, and where jobs are whose records lie there. ("running": those of level
`none`, which lie nowhere else.)"""


class Listing:
    def __init__(
        self, ledger: Ledger, keys: Keys, clock: Clock, directory: Directory, words: Words, here: Here,
        known: Known | None = None,
    ) -> None:
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self._directory = directory
        self._words = words
        self._here = here
        self._narrow = Narrow(ledger, keys, known)

    async def page(
        self, place: str, queue: str, task: str, limit: int, after: str, more: JobsFilter = ANY_JOB
    ) -> JobsPage:
        """Raises `InvalidJob` for a place that is none, or a cursor that is not from here."""
        if place and place not in PLACES:
            raise InvalidJob(f"place={place:.40}: a job is {', '.join(PLACES)}")
        found: list[JobView] = []
        looked = 0
        until = time.monotonic() + LOOK_S
        running = await self._running()
        for section, behind in self._rest(place, after):
            prefix = self._prefix(section, queue)
            async for record in self._records(section, prefix, behind, limit):
                if self._fits(section, record, more):
                    views = await self._views(section, record, running)
                    found += [
                        view for view in views
                        if view.place == (place or view.place) and view.queue == (queue or view.queue)
                        and view.task == (task or view.task) and more.takes(view)
                    ]
                looked += 1
                if len(found) >= limit or looked >= LOOKED_MAX or time.monotonic() > until:
                    return JobsPage(found, f"{section}:{self._name(self._area(section), record)}")
        return JobsPage(found, "")

    async def _records(self, section: str, prefix: bytes, behind: bytes, limit: int) -> AsyncIterator[Record]:
        if section == "jobs":
            async for page in self._narrow.pages(prefix, behind, min(PAGE, max(limit, PAGE_MIN))):
                for record in page.records:
                    yield record
        else:
            async for record in scan(self._ledger, prefix, after=behind, size=PAGE):
                yield record

    def _rest(self, place: str, after: str) -> list[tuple[str, bytes]]:
        """The sections from the cursor on, and behind which key to begin there."""
        wanted = [name for name, places in SECTIONS.items() if not place or place in places]
        if not after:
            return [(name, b"") for name in wanted]
        section, colon, key = after.partition(":")
        if not colon or section not in wanted:
            raise InvalidJob(f"after={after!r:.60} is not from this list: take `next` of the page before, as it is")
        begin = self._area(section) + key.encode()
        return [(section, begin), *((name, b"") for name in wanted[wanted.index(section) + 1:])]

    def _area(self, section: str) -> bytes:
        keys = self._keys
        return {
            "running": keys.running, "claims": keys.claims, "jobs": keys.jobs, "scheduled": keys.scheduled,
            "awaiting": keys.awaiting, "failed": keys.failed, "finished": keys.finished,
        }[section]

    def _prefix(self, section: str, queue: str) -> bytes:
        """What lies by queue is read by queue."""
        area = self._area(section)
        return area + f"{queue}/".encode() if queue and section in ("jobs", "awaiting", "failed", "finished") else area

    async def _running(self) -> dict[tuple[str, int], RunningJob]:
        found = {}
        async for record in scan(self._ledger, self._keys.running):
            running = decode(RunningRecord, record.value)
            found.update({(job.bundle, job.index): job for job in (running.jobs if running is not None else ())})
        return found

    # -- what a record stands for --------------------------------------------------------------------------------------

    async def _views(
        self, section: str, record: Record, running: dict[tuple[str, int], RunningJob]
    ) -> list[JobView]:
        match section:
            case "running":
                return self._volatile(record)
            case "claims":
                return [view async for view in self._held(record, running)]
            case "jobs" | "scheduled" | "awaiting":
                return [view async for view in self._waiting(record)]
            case "failed":
                return self._failed(record)
            case _:
                return self._finished(record)

    def _volatile(self, record: Record) -> list[JobView]:
        running, node = decode(RunningRecord, record.value), self._name(self._keys.running, record)
        return [
            jobs.running(job_id(job.bundle, job.index), job, node)
            for job in (running.jobs if running is not None else ()) if job.volatile
        ]

    async def _held(self, record: Record, running: dict[tuple[str, int], RunningJob]) -> AsyncIterator[JobView]:
        claim, parsed = claim_in(record.value), self._keys.parse_claim(record.key)
        if claim is None or parsed is None:
            return
        node, bundle = parsed
        claim = self._words.heard_token(bundle, claim)
        for index in await self._indexes(bundle, claim):
            job = running.get((whole(bundle), index))
            if node == self._here.node:
                job = self._here.job(whole(bundle), index) or job
            yield jobs.held(job_id(bundle, index), claim, node, job.since_ms if job is not None else None)

    async def _waiting(self, record: Record) -> AsyncIterator[JobView]:
        token, bundle = waiting_at(self._keys, record), record.key.rpartition(b"/")[2].decode(errors="replace")
        if token is None:
            return
        token = self._words.heard_token(bundle, token)
        due = self._keys.parse_due(record.key) if record.key.startswith(self._keys.scheduled) else None
        for index in await self._indexes(bundle, token):
            id_ = job_id(bundle, index)
            if due is not None:
                view = jobs.scheduled(id_, token, due[0])
            elif isinstance(token, Awaiting):
                view = jobs.awaiting(id_, token, jobs.waits_for(token))
            else:
                view = jobs.waiting(id_, token, self._place_in_queue(token), "")
            yield replace(view, enqueued_at=token.at / 1000)

    def _place_in_queue(self, token: Token) -> Place:
        settings = self._directory.queues.get(token.queue)
        if settings is None or not settings.serial:
            return "waiting"
        if token.blocked:
            return "blocked"
        return "retrying" if token.not_before > self._clock.wall() * 1000 else "waiting"

    def _failed(self, record: Record) -> list[JobView]:
        failed = failed_at(self._keys, record)
        if failed is None:
            return []
        failed = self._words.heard_failed(failed)
        return [JobView(
            job_id(*split_job(failed.id)), "failed", failed.task, failed.queue, failed.attempts, failed.node,
            error=failed.error, finished_at=failed.at or None,
        )]

    def _finished(self, record: Record) -> list[JobView]:
        kept = decode(FinishedRecord, record.value)
        if kept is None:
            return []
        return [
            JobView(
                job_id(kept.bundle, index), "finished", kept.task, kept.queue, kept.attempts, kept.node,
                finished_at=kept.at, enqueued_at=kept.enqueued_at or None,
            )
            for index in kept.indexes
        ]

    async def _indexes(self, bundle: str, token: Token) -> list[int]:
        """Which of its jobs have not ended. Of a piece of several that the release before made only its body knows."""
        indexes = jobs_in(bundle, token)
        if indexes is None:
            page = await self._ledger.read(self._keys.body(bundle))
            header = header_of(page.records[0].value) if page.records else None
            indexes = jobs_in(bundle, token, header) or []
        return indexes

    def _fits(self, section: str, record: Record, more: JobsFilter) -> bool:
        """Whether it has the key and the label that are asked for, as far as its record and its task say so."""
        if not (more.key or more.label):
            return True
        if section == "claims":
            token: Token | None = claim_in(record.value)
        elif section in ("jobs", "scheduled", "awaiting"):
            token = waiting_at(self._keys, record)
        else:
            return False
        if token is None:
            return False
        return token.key == (more.key or token.key) and (not more.label or more.label in self._directory.wants(token))

    @staticmethod
    def _name(area: bytes, record: Record) -> str:
        return record.key[len(area):].decode(errors="replace")
