"""News of one job: what is different now from what somebody has seen. Nothing is remembered between two questions: what
was seen comes back as a cursor, to any node."""

from __future__ import annotations

import asyncio
import time

import msgspec

from rota.client.errors import InvalidJob
from rota.client.wire.views import EventsPage, JobEvent, JobView, LogView

from ..clock import Clock
from ..ledger.ledger import Ledger
from ..state.keys import Keys
from ..state.records import LogRecord, decode
from .jobs import Jobs, parsed

LOOK_S = 0.5
SHARE = 20
"""A look that takes long is taken less often: at most one part of so many of the time goes into looking."""
LOG_LATE_S = 0.5
"""The last lines of a log, and the first of a job that was quick, may come behind the outcome, by so much."""
ENDED = ("finished", "failed", "unknown")


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor says: the state, the time of the progress, and the attempt and number of the last log line."""

    place: str = ""
    attempt: int = 0
    node: str = ""
    progress_ms: int = 0
    log_attempt: int = 0
    lines: int = 0


class Watching:
    def __init__(self, jobs: Jobs, ledger: Ledger, keys: Keys, clock: Clock) -> None:
        self._clock = clock
        self._jobs = jobs
        self._ledger = ledger
        self._keys = keys

    async def log(self, job_id: str) -> LogView:
        """What is kept of a job's log; raises `InvalidJob` for what is no job id."""
        page = await self._ledger.read(self._keys.log_of(*parsed(job_id)))
        record = decode(LogRecord, page.records[0].value) if page.records else None
        return LogView() if record is None else LogView(record.lines, record.attempt, record.dropped)

    async def news(self, job_id: str, after: str, wait_s: float) -> EventsPage:
        """What is new behind `after` ("": all that can be told now); waits for it for so long at the most."""
        seen, until, unknown = _seen_in(after), time.monotonic() + wait_s, False
        while True:
            began = time.monotonic()
            page = await self._look(job_id, seen)
            if page.over and page.events[-1].place == "unknown" and not unknown:
                unknown = True          # it may be on its way from one place to another
                await asyncio.sleep(LOOK_S)
                continue
            took_s = time.monotonic() - began
            pause_s = max(LOOK_S, SHARE * took_s)
            if page.events or page.over:
                return page
            left_s = until - time.monotonic()
            await asyncio.sleep(min(pause_s, max(0.0, left_s)))     # who asks again at once does not look more often
            if pause_s > left_s:
                return page

    async def _look(self, job_id: str, seen: Seen) -> EventsPage:
        view, log = await self._jobs.job(job_id), await self.log(job_id)
        over = view.place in ENDED
        if over:
            just_now = view.finished_at is not None and self._clock.wall() < view.finished_at + 2 * LOG_LATE_S
            await asyncio.sleep(LOG_LATE_S if log.lines or just_now else 0)
            log = await self.log(job_id)
        events, now = [], self._clock.wall()
        first = seen.lines if log.attempt == seen.log_attempt else 0
        for line in log.lines[max(0, first - log.dropped):]:
            events.append(JobEvent("log", line.at, attempt=log.attempt, line=line))
        progress_ms = seen.progress_ms
        if view.progress is not None and round(view.progress.at * 1000) != progress_ms:
            progress_ms = round(view.progress.at * 1000)
            events.append(JobEvent("progress", view.progress.at, progress=view.progress))
        if over or (view.place, view.attempt, view.node) != (seen.place, seen.attempt, seen.node):
            state = _state(view, now)
            events = [*events, state] if over else [state, *events]
        new = Seen(
            view.place, view.attempt, view.node, progress_ms, log.attempt, log.dropped + len(log.lines)
        )
        return EventsPage(events, msgspec.json.encode(new).decode(), over)


def _state(view: JobView, now: float) -> JobEvent:
    why = view.error if view.place == "failed" and view.error else view.why
    return JobEvent("state", view.finished_at or view.began_at or now, view.place, view.attempt, view.node, why)


def _seen_in(cursor: str) -> Seen:
    if not cursor:
        return Seen()
    try:
        return msgspec.json.decode(cursor, type=Seen)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise InvalidJob(f"after={cursor!r:.60} is not what `next` said") from None
