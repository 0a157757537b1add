"""Firing schedules: the master makes a job of each tick when it is due; its wall clock decides.

A tick is fired by one transaction that advances the schedule's record and stores the job, guarded by the record as it
was seen: exactly once, whoever tries it and however often. The records are all that a new master needs.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from rota.client.errors import InvalidJob, SignatureRefused
from rota.client.ids import tick_id

from ...context import TermContext
from ...events.records import ScheduleRefused, ScheduleSkipped
from ...ledger.commits import Verdict, Write, created, unmodified
from ...ledger.ledger import OPS_MAX, Changes, Condition, Get, Record, Txn
from ...ledger.scan import scan
from ...state import moves
from ...state.records import QueueRecord, decode, tail_of
from ...state.schedules import (
    PENDING_MAX,
    ScheduleRecord,
    check_template,
    jitter_ms,
    job_of,
    schedule_in,
)
from .due import until_due

BUSY_LOOK_S = 0.25
"""How soon it is looked again whether the job before has ended."""

TICKS_PER_WRITE = 20
BATCH = OPS_MAX // 4
"""Schedules whose needs are read in one transaction."""

ABREAST = 8
"""So many transactions under way at a time, where a thousand are due at the same second."""


class _Known(msgspec.Struct, gc=False):
    record: ScheduleRecord
    mod_revision: int
    refused: bool = False       # its template does not fit, or cannot be verified here: until it changes


class Schedules:
    """One term's. `see` takes what the watch delivers, `run` fires."""

    def __init__(self, context: TermContext) -> None:
        self._ledger = context.ledger
        self._keys = context.keys
        self._clock = context.clock
        self._commits = context.commits
        self._fence = context.fence
        self._seal = context.seal
        self._events = context.events
        self._known: dict[str, _Known] = {}
        self._due: list[tuple[int, str]] = []       # (ms, name), a heap; an entry that is out of date is passed over
        self._changed = asyncio.Event()
        self._seen = 0

    # -- what there is -------------------------------------------------------------------------------------------------

    def see(self, changes: Changes) -> None:
        self._seen = changes.revision
        for event in changes.events:
            if event.record.key.startswith(self._keys.schedules):
                self._take(event.record, deleted=event.deleted)
                self._changed.set()

    async def load(self) -> None:
        """All there are. What the watch has shown meanwhile counts if it is newer."""
        async for record in scan(self._ledger, self._keys.schedules):
            self._take(record)

    def _take(self, record: Record, *, deleted: bool = False) -> None:
        name = self._keys.parse_schedule(record.key)
        if name is None:
            return              # not ours: left alone
        known = self._known.get(name)
        if known is not None and known.mod_revision >= record.mod_revision:
            return
        schedule = None if deleted else schedule_in(record.value)
        if schedule is None:
            self._known.pop(name, None)
            return
        self._known[name] = _Known(schedule, record.mod_revision)
        self._plan(name, self._known[name])

    def _plan(self, name: str, known: _Known) -> None:
        """When to look at it next."""
        record = known.record
        if record.paused or known.refused:
            return
        now_ms = self._now_ms()
        if record.pending:
            next_ms: int | None = now_ms + int(BUSY_LOOK_S * 1000)
        elif record.timetable.is_due(record.tick, now_ms, record.catch_up):
            next_ms = now_ms
        else:
            next_ms = record.timetable.next_after(max(record.tick, now_ms))
        if next_ms is not None:
            heapq.heappush(self._due, (next_ms, name))

    @property
    def next_ms(self) -> int | None:
        """When something is to be looked at next."""
        return self._due[0][0] if self._due else None

    def _now_ms(self) -> int:
        return int(self._clock.wall() * 1000)

    # -- firing --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        await self.load()
        while True:
            self._changed.clear()
            await self.fire_due()
            await until_due(self._clock, self.next_ms, self._changed)

    async def fire_due(self) -> None:
        """Fire what is due by now."""
        now_ms = self._now_ms()
        names: dict[str, None] = {}
        while self._due and self._due[0][0] <= now_ms:
            names[heapq.heappop(self._due)[1]] = None
        todo = [name for name in names if name in self._known and not self._known[name].record.paused]
        batches = [todo[start : start + BATCH] for start in range(0, len(todo), BATCH)]
        for first in range(0, len(batches), ABREAST):
            serial: set[str] = set()        # queues whose tail one of these writes moves: one at a time
            async with asyncio.TaskGroup() as group:
                for batch in batches[first : first + ABREAST]:
                    group.create_task(self._fire(batch, now_ms, serial), name="fire")

    async def _fire(self, names: list[str], now_ms: int, serial: set[str]) -> None:
        """Read what these need in one transaction, and submit what they write: the commits gather it."""
        keys = self._keys
        gets: list[Get] = []
        names = [name for name in names if name in self._known]     # one may be gone since it was found to be due
        if not names:
            return
        for name in names:
            record = self._known[name].record
            gets += [Get(keys.template(name)), Get(keys.queue(record.queue)), Get(keys.tail(record.queue))]
            gets.append(Get(keys.body(record.last or "-")))
        answers = (await self._ledger.commit(Txn((), tuple(gets)))).answers
        tried: list[tuple[str, _Known, asyncio.Future[Verdict]]] = []
        for number, name in enumerate(names):
            template, queue, tail, before = answers[number * 4 : number * 4 + 4]
            known = self._known.get(name)
            if known is None:
                continue
            settings = (decode(QueueRecord, queue[0].value) if queue else None) or QueueRecord()
            if settings.serial and known.record.queue in serial:
                heapq.heappush(self._due, (now_ms, name))
                continue
            write = self._write(
                name, known, template[0].value if template else b"", now_ms, busy=bool(before),
                tail=_tail(keys.tail(known.record.queue), tail) if settings.serial else None,
            )
            if write is not None:
                if settings.serial:
                    serial.add(known.record.queue)
                tried.append((name, known, self._commits.submit(write)))
        for name, known, future in tried:
            self._settle(name, known, await future)

    def _write(
        self, name: str, known: _Known, template: bytes, now_ms: int, *, busy: bool, tail: tuple[Condition, int] | None
    ) -> Write | None:
        """What is to be written of one schedule now, if anything is; else it is planned again."""
        record = known.record
        ticks = record.timetable.due(record.tick, now_ms, record.catch_up)
        advanced, fire, guards = self._decide(name, record, ticks, busy=busy)
        if advanced == record:
            self._plan(name, known)
            return None
        try:
            if fire:
                check_template(self._seal, name, record, template)
        except (InvalidJob, SignatureRefused) as error:
            known.refused = True
            self._events.emit(ScheduleRefused(name, str(error)))
            return None
        order = max(self._seen, self._commits.revision, tail[1] + 1 if tail else 0)
        jobs: list[moves.Fired] = []
        for tick in fire:
            bundle, due_ms = tick_id(name, record.created, tick), tick + jitter_ms(name, tick, record.jitter_s)
            token, body = job_of(self._seal, record, template, bundle, now_ms, order)
            jobs.append(moves.Fired(bundle, token, body, due_ms if due_ms > now_ms and record.jitter_s else None))
            order += tail is not None       # in a serial queue each has a place of its own
        at = unmodified(self._keys.schedule(name), known.mod_revision)
        return moves.fire(self._keys, (self._fence, *guards), at, advanced, jobs, tail=tail[0] if tail else None)

    def _decide(
        self, name: str, record: ScheduleRecord, ticks: list[int], *, busy: bool
    ) -> tuple[ScheduleRecord, list[int], tuple[Condition, ...]]:
        """What becomes of ticks that are due: the record as it will be, the ticks to fire now, and what must hold."""
        if record.overlap == "allow":
            fire = ticks[:TICKS_PER_WRITE]
            return _fired(name, record, fire) if fire else record, fire, ()
        ended = (created(self._keys.body(record.last), 0),) if record.last else ()
        if record.overlap == "skip":
            if busy and ticks:
                self._events.emit(ScheduleSkipped(name, len(ticks), "the job of the tick before has not ended"))
                return replace(record, tick=ticks[-1], skipped=record.skipped + len(ticks)), [], ()
            # of several that are due at once, the first may run: by the time of the others it has not ended
            return (_fired(name, record, ticks[:1]), ticks[:1], ended) if ticks else (record, [], ())
        waiting = (*record.pending, *ticks)
        if len(waiting) > PENDING_MAX:
            dropped = len(waiting) - PENDING_MAX
            self._events.emit(ScheduleSkipped(name, dropped, f"{PENDING_MAX} ticks wait already"))
            record, waiting = replace(record, skipped=record.skipped + dropped), waiting[:PENDING_MAX]
        if ticks:
            record = replace(record, tick=ticks[-1])
        if busy or not waiting:
            return replace(record, pending=waiting), [], ()
        fired = _fired(name, record, [waiting[0]])
        return replace(fired, tick=record.tick, pending=waiting[1:]), [waiting[0]], ended

    def _settle(self, name: str, known: _Known, verdict: Verdict) -> None:
        """What the watch shows of it later is older news, or the same. Where it was refused, somebody changed it, or
        the job before it ended at this moment: it is looked at again."""
        if self._known.get(name) is known:
            heapq.heappush(self._due, (self._now_ms() + int(BUSY_LOOK_S * 1000), name))
        if not verdict.applied:
            self._changed.set()


def _fired(name: str, record: ScheduleRecord, ticks: list[int]) -> ScheduleRecord:
    newest = ticks[-1]
    return replace(
        record, tick=max(record.tick, newest), last=tick_id(name, record.created, newest), last_tick=newest,
        fired=record.fired + len(ticks),
    )


def _tail(key: bytes, found: Iterable[Record]) -> tuple[Condition, int]:
    """The end of a serial queue as it was seen, and the order of its last job."""
    for record in found:
        return unmodified(key, record.mod_revision), tail_of(record)
    return unmodified(key, 0), 0
