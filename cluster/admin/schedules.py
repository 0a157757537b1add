"""What people do to schedules: put, pause, resume, delete, run now; and how they stand. Any node does it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from msgspec.structs import replace

from rota.client.calls.pickling import dump_arguments
from rota.client.errors import EnqueueError, InvalidJob, JobUnknown, LedgerUnavailable, RotaError, UnknownTask
from rota.client.ids import Names, is_task_name, job_id, template_id
from rota.client.model import HEADER_SCHEMA, Enqueue, Header, Receipt, TaskInfo
from rota.client.options import checks as options
from rota.client.options import timetable
from rota.client.wire.views import NewSchedule, ScheduleView

from ..context import IdentityContext
from ..ledger.commits import unmodified
from ..ledger.ledger import Delete, Put, Record
from ..ledger.scan import scan
from ..state.directory import Directory
from ..state.records import encode
from ..state.schedules import ScheduleRecord, check_template, job_of, schedule_in
from .status import Status

TRIES_MAX = 20
LISTED_MAX = 200
LOOKS_AT_ONCE = 20


class ScheduleAdmin:
    """One identity's. Raises `InvalidJob` for what makes no sense, `JobUnknown` for a schedule that is not there."""

    def __init__(
        self, context: IdentityContext, directory: Directory, status: Status,
        enqueue: Callable[[list[Enqueue], int], Awaitable[list[Receipt | EnqueueError]]],
    ) -> None:
        self._ledger = context.ledger
        self._commits = context.commits
        self._keys = context.keys
        self._clock = context.clock
        self._directory = directory
        self._status = status
        self._member = context.member
        self._seal = context.seal
        self._enqueue = enqueue
        self._names = Names()

    # -- changing ------------------------------------------------------------------------------------------------------

    async def put(self, name: str, new: NewSchedule) -> ScheduleView:
        """Make a schedule, or change it. What it has fired counts on; a new timetable begins now."""
        made = await self._checked(name, new)
        for _ in range(TRIES_MAX):
            old, revision = await self._read(name)
            if old is not None and new.declared and not old.declared:
                raise InvalidJob(f"schedule {name} was put by a person: delete it before code declares one of its name")
            record = made if old is None else _changed(old, made)
            if record != old or not await self._has_template(name, new.template):
                puts = (Put(self._keys.schedule(name), encode(record)), Put(self._keys.template(name), new.template))
                if not await self._write(name, revision, puts):
                    continue
            return await self._view(name, record)
        raise LedgerUnavailable(f"schedule {name} is being changed by others all the time: try again")

    async def declare(self, info: TaskInfo) -> None:
        """What the code of this node says of a task: a schedule of the task's name, without arguments. One that a
        person put under the name stays."""
        declared = info.schedule
        assert declared is not None
        old, _ = await self._read(info.name)
        if old is not None and not old.declared:
            return
        payload, codec = dump_arguments((), {})
        header = Header(
            template_id(info.name), info.name, info.queue, info.mode, [0], [len(payload)], 0.0, codec,
            v=HEADER_SCHEMA, priority=declared.priority,
        )
        template = self._seal.body(header, [payload])
        await self.put(info.name, NewSchedule(template=template, declared=True, **msgspec.structs.asdict(declared)))

    async def pause(self, name: str) -> ScheduleView:
        """Fire no further ticks. Jobs of ticks that were fired are not touched."""
        return await self._change(name, lambda record: replace(record, paused=True))

    async def resume(self, name: str) -> ScheduleView:
        """Go on from now: what was due meanwhile is not made up for."""
        now_ms = self._now_ms()
        return await self._change(
            name,
            lambda record: replace(record, paused=False, tick=max(record.tick, now_ms)) if record.paused else record,
        )

    async def delete(self, name: str) -> None:
        for _ in range(TRIES_MAX):
            record, revision = await self._read(name)
            if record is None and not revision:
                raise _unknown(name)
            gone = (Delete(self._keys.schedule(name)), Delete(self._keys.template(name)))
            if await self._write(name, revision, gone):
                return
        raise LedgerUnavailable(f"schedule {name} is being changed by others all the time: try again")

    async def run_now(self, name: str) -> str:
        """Enqueue a job of it, beside its ticks; returns the job's id."""
        record, _ = await self._read(name)
        if record is None:
            raise _unknown(name)
        template = await self._template(name)
        check_template(self._seal, name, record, template)
        bundle = self._names.next()
        _, body = job_of(self._seal, record, template, bundle, self._now_ms(), 0)
        (answer,) = await self._enqueue([Enqueue(
            bundle, record.task, record.queue, 1, record.mode, body, priority=record.priority, python=record.python,
            function=record.function,
        )], 0)
        if not isinstance(answer, Receipt):
            raise answer
        return job_id(bundle, 0)

    # -- looking -------------------------------------------------------------------------------------------------------

    async def get(self, name: str) -> ScheduleView:
        record, _ = await self._read(name)
        if record is None:
            raise _unknown(name)
        return await self._view(name, record)

    async def list(self, after: str, limit: int) -> list[ScheduleView]:
        """Schedules by name, those behind `after`."""
        found: list[tuple[str, ScheduleRecord]] = []
        begin = self._keys.schedule(after) if after else b""
        async for entry in scan(self._ledger, self._keys.schedules, after=begin, limit=min(limit, LISTED_MAX)):
            name, record = self._keys.parse_schedule(entry.key), schedule_in(entry.value)
            if name is not None and record is not None:
                found.append((name, record))
        at_once = asyncio.Semaphore(LOOKS_AT_ONCE)

        async def view(name: str, record: ScheduleRecord) -> ScheduleView:
            async with at_once:
                return await self._view(name, record)

        return list(await asyncio.gather(*(view(name, record) for name, record in found)))

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _now_ms(self) -> int:
        return int(self._clock.wall() * 1000)

    async def _checked(self, name: str, new: NewSchedule) -> ScheduleRecord:
        if not is_task_name(name):
            raise InvalidJob(f"{name!r:.80} is not a valid schedule name: letters, digits and _ . : @ - (at most 256)")
        header, payloads = self._seal.keyring.verify(new.template, self._keys.cluster)
        if header.bundle != template_id(name) or len(payloads) != 1:
            raise InvalidJob(f"the template is not one for schedule {name}")
        if header.function:
            raise InvalidJob("code shipped by value is not kept for ever: a schedule needs a task that nodes import")
        await self._check_task(header)
        now_ms = self._now_ms()
        start_ms = now_ms if new.every_s else 0
        table = timetable.timetable(cron=new.cron, tz=new.tz, every=new.every_s, start_ms=start_ms)
        return ScheduleRecord(
            header.task, options.queue_name(header.queue), header.mode, table, now_ms, now_ms,
            priority=options.priority(new.priority), jitter_s=timetable.jitter_of(new.jitter_s),
            catch_up=options.one_of(new.catch_up, timetable.CATCH_UPS, "catch_up"),
            overlap=options.one_of(new.overlap, timetable.OVERLAPS, "overlap"), declared=new.declared,
            python=header.python, signed=self._seal.keyring.mark(header.key_id),
            weight=task.weight if (task := self._directory.tasks.get(header.task)) is not None else 1,
        )

    async def _check_task(self, header: Header) -> None:
        mode = await self._directory.task_mode(header.task)
        if mode is None:
            raise UnknownTask(f"no node has ever registered {header.task!r:.200}: is its module in some node's --app?")
        if mode != header.mode:
            raise InvalidJob(f"task {header.task!r:.200} is {mode} on the nodes, not {header.mode}")

    async def _change(self, name: str, change: Callable[[ScheduleRecord], ScheduleRecord]) -> ScheduleView:
        for _ in range(TRIES_MAX):
            record, revision = await self._read(name)
            if record is None:
                raise _unknown(name)
            changed = change(record)
            put = (Put(self._keys.schedule(name), encode(changed)),)
            if changed == record or await self._write(name, revision, put):
                return await self._view(name, changed)
        raise LedgerUnavailable(f"schedule {name} is being changed by others all the time: try again")

    async def _read(self, name: str) -> tuple[ScheduleRecord | None, int]:
        """(record, its revision); (None, revision) for one that cannot be read, (None, 0) for none."""
        page = await self._ledger.read(self._keys.schedule(name))
        found: Record | None = page.records[0] if page.records else None
        return (schedule_in(found.value), found.mod_revision) if found is not None else (None, 0)

    async def _template(self, name: str) -> bytes:
        page = await self._ledger.read(self._keys.template(name))
        return page.records[0].value if page.records else b""

    async def _has_template(self, name: str, template: bytes) -> bool:
        return await self._template(name) == template

    async def _write(self, name: str, revision: int, ops: tuple[Put | Delete, ...]) -> bool:
        at = unmodified(self._keys.schedule(name), revision)
        verdict = await self._commits.write((self._member, at), ops)
        return verdict.applied

    async def _view(self, name: str, record: ScheduleRecord) -> ScheduleView:
        table, now_ms = record.timetable, self._now_ms()
        following = None if record.paused else table.next_after(max(record.tick, now_ms))
        return ScheduleView(
            name, record.task, record.queue, table.explain(), table.cron, table.tz if table.cron else "",
            table.every_s, None if following is None else following / 1000,
            record.last_tick / 1000 if record.last else None,
            job_id(record.last, 0) if record.last else "", await self._place(record.last), record.paused,
            record.declared, self._is_stale(name, record), record.catch_up, record.overlap, record.jitter_s,
            record.priority, record.fired, record.skipped, len(record.pending),
        )

    def _is_stale(self, name: str, record: ScheduleRecord) -> bool:
        """Declared by code that no node runs now. Where no node is there, nobody can tell."""
        members = self._directory.members.values()
        return record.declared and bool(members) and not any(name in member.schedules for member in members)

    async def _place(self, bundle: str) -> str:
        if not bundle:
            return ""
        try:
            return (await self._status.jobs.job(job_id(bundle, 0))).place
        except RotaError:
            return "unknown"


def _changed(old: ScheduleRecord, made: ScheduleRecord) -> ScheduleRecord:
    """The new settings; what has been fired so far stays. The same timetable goes on, another begins now."""
    kept = replace(
        made, created=old.created, last=old.last, last_tick=old.last_tick, fired=old.fired, skipped=old.skipped,
        paused=old.paused,
    )
    if replace(old.timetable, start_ms=0) == replace(made.timetable, start_ms=0):
        kept = replace(kept, timetable=old.timetable, tick=old.tick, pending=old.pending)
    return kept


def _unknown(name: str) -> JobUnknown:
    return JobUnknown(f"there is no schedule {name!r:.200}; `rota schedules` lists them", name)


