"""Schedules at run time: `client.schedules.put("nightly", report, cron="0 3 * * 1-5", tz="Europe/Berlin")`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import msgspec

from ..calls.order import EMPTY, Order, Routed
from ..errors import InvalidJob
from ..ids import is_task_name, normal, template_id
from ..model import HEADER_SCHEMA, Header
from ..options.checks import one_of
from ..options.timetable import CATCH_UPS, OVERLAPS, CatchUp, Overlap, jitter_of, timetable
from ..tasks.named import NamedTask
from ..wire.codec import PYTHON
from ..wire.views import NewSchedule, ScheduleView

T = TypeVar("T")


class Ran(msgspec.Struct):
    id: str


class Deleted(msgspec.Struct):
    deleted: str


class Asked(NamedTuple):
    """What a schedule is put with, checked."""

    name: str
    order: Order
    settings: NewSchedule


class AsyncSchedules:
    """The schedules of a cluster, for coroutines: `client.schedules` of an `AsyncClient`."""

    def __init__(
        self, page: Callable[[str, Any], Awaitable[Any]], post: Callable[[str, object, Any], Awaitable[Any]],
        template: Callable[[Asked], Awaitable[bytes]],
    ) -> None:
        self._page = page
        self._post = post
        self._template = template

    async def put(
        self, name: str, task: Routed | str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] = EMPTY, *,
        cron: str | None = None, tz: str | None = None, every: timedelta | float | None = None,
        jitter: timedelta | float = 0.0, catch_up: CatchUp = "latest", overlap: Overlap = "allow",
    ) -> ScheduleView:
        """Make a schedule, or change the one of this name.

        Args:
            name: what it is called; one name is one schedule.
            task: a task, or its name; `task.using(queue=…, priority=…)` says where its jobs go.
            args, kwargs: what its jobs are called with.
            cron: five fields, minute hour day month weekday: "0 3 * * 1-5". Either this or `every`.
            tz: the time zone of `cron`, an IANA name; UTC if not given.
            every: seconds or a timedelta, at least a second, counted from now.
            jitter: each job is due up to so much later than its tick, at most a day.
            catch_up: what becomes of ticks that nobody was there for: "latest" (the newest one is made up for), "all"
                (the newest 1,000) or "none".
            overlap: what becomes of a tick while the job of the one before has not ended: "allow", "skip", or "queue"
                (it waits; at most 100 do).

        Raises:
            InvalidJob: a setting makes no sense; it says which, and what would.
            UnknownTask: no node knows the task.
        """
        asked = checked(name, task, args, kwargs, cron, tz, every, jitter, catch_up, overlap)
        body = msgspec.structs.replace(asked.settings, template=await self._template(asked))
        view: ScheduleView = await self._post(path(asked.name), body, ScheduleView)
        return view

    async def list(self) -> list[ScheduleView]:
        """All schedules, by name."""
        found: list[ScheduleView] = []
        while True:
            part: list[ScheduleView] = await self._page(after(found), list[ScheduleView])
            found += part
            if not part:
                return found

    async def get(self, name: str) -> ScheduleView:
        """One schedule. Raises `JobUnknown` if there is none of this name."""
        view: ScheduleView = await self._page(path(name), ScheduleView)
        return view

    async def pause(self, name: str) -> ScheduleView:
        """Fire no further ticks; jobs that were enqueued go on."""
        view: ScheduleView = await self._post(path(name, "pause"), {}, ScheduleView)
        return view

    async def resume(self, name: str) -> ScheduleView:
        """Go on from now; what was due meanwhile is not made up for."""
        view: ScheduleView = await self._post(path(name, "resume"), {}, ScheduleView)
        return view

    async def run_now(self, name: str) -> str:
        """Enqueue a job of it at once, beside its ticks; returns the job's id."""
        ran: Ran = await self._post(path(name, "run"), {}, Ran)
        return ran.id

    async def delete(self, name: str) -> None:
        """Forget it; jobs that were enqueued go on. Code that declares it puts it again when a node starts."""
        await self._post(path(name, "delete"), {}, Deleted)


class Schedules:
    """The schedules of a cluster: `client.schedules` of a `Client`. See `AsyncSchedules`."""

    def __init__(
        self, page: Callable[[str, Any], Any], post: Callable[[str, object, Any], Any],
        template: Callable[[Asked], bytes],
    ) -> None:
        self._page = page
        self._post = post
        self._template = template

    def put(
        self, name: str, task: Routed | str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] = EMPTY, *,
        cron: str | None = None, tz: str | None = None, every: timedelta | float | None = None,
        jitter: timedelta | float = 0.0, catch_up: CatchUp = "latest", overlap: Overlap = "allow",
    ) -> ScheduleView:
        """See `AsyncSchedules.put`."""
        asked = checked(name, task, args, kwargs, cron, tz, every, jitter, catch_up, overlap)
        body = msgspec.structs.replace(asked.settings, template=self._template(asked))
        view: ScheduleView = self._post(path(asked.name), body, ScheduleView)
        return view

    def list(self) -> list[ScheduleView]:
        """See `AsyncSchedules.list`."""
        found: list[ScheduleView] = []
        while True:
            part: list[ScheduleView] = self._page(after(found), list[ScheduleView])
            found += part
            if not part:
                return found

    def get(self, name: str) -> ScheduleView:
        """See `AsyncSchedules.get`."""
        view: ScheduleView = self._page(path(name), ScheduleView)
        return view

    def pause(self, name: str) -> ScheduleView:
        """See `AsyncSchedules.pause`."""
        view: ScheduleView = self._post(path(name, "pause"), {}, ScheduleView)
        return view

    def resume(self, name: str) -> ScheduleView:
        """See `AsyncSchedules.resume`."""
        view: ScheduleView = self._post(path(name, "resume"), {}, ScheduleView)
        return view

    def run_now(self, name: str) -> str:
        """See `AsyncSchedules.run_now`."""
        ran: Ran = self._post(path(name, "run"), {}, Ran)
        return ran.id

    def delete(self, name: str) -> None:
        """See `AsyncSchedules.delete`."""
        self._post(path(name, "delete"), {}, Deleted)


def path(name: str, verb: str = "") -> str:
    named = normal(name) if isinstance(name, str) else name
    if not isinstance(named, str) or not is_task_name(named):
        raise InvalidJob(f"{name!r:.80} is not a valid schedule name: letters, digits and _ . : @ - (at most 256)")
    return f"/v1/schedules/{quote(named, safe='')}" + (f"/{verb}" if verb else "")


def after(found: list[ScheduleView]) -> str:
    return f"/v1/schedules?after={quote(found[-1].name, safe='')}" if found else "/v1/schedules"


def checked(
    name: str, task: Routed | str, args: Sequence[Any], kwargs: Mapping[str, Any], cron: str | None, tz: str | None,
    every: timedelta | float | None, jitter: timedelta | float, catch_up: str, overlap: str,
) -> Asked:
    """Raises `InvalidJob` for what a node would refuse, as far as that can be told here."""
    path(name)
    table = timetable(cron=cron, tz=tz, every=every)
    if isinstance(args, str | bytes):
        raise InvalidJob(f"args {args!r:.80} is not valid: a sequence of arguments, as in args=(2026, 'monthly')")
    routed = NamedTask(task) if isinstance(task, str) else task
    order = routed.order(tuple(args), kwargs)
    if order.route.bundle:
        raise InvalidJob("a schedule's arguments lie in its template, and cannot lie in an object store")
    if order.route.function:
        raise InvalidJob("code shipped by value is not kept for ever: a schedule needs a task that nodes can import")
    if order.route.delay_s or order.route.level != "durable":
        raise InvalidJob("a schedule says when its jobs run, and stores them: run_after and level do not go with it")
    return Asked(normal(name), order, NewSchedule(
        template=b"", cron=table.cron or None, tz=tz, every_s=table.every_s or None, jitter_s=jitter_of(jitter),
        catch_up=one_of(catch_up, CATCH_UPS, "catch_up"),
        overlap=one_of(overlap, OVERLAPS, "overlap"), priority=order.route.priority,
    ))


def header_of(asked: Asked, at_s: float) -> Header:
    """The head of the template, of which each tick's job is a copy under another name."""
    route = asked.order.route
    assert route.mode is not None
    return Header(
        bundle=template_id(asked.name), task=route.task, queue=route.queue, mode=route.mode, indexes=[0],
        sizes=[len(asked.order.payload)], enqueued_at=at_s, codec=asked.order.codec,
        python=PYTHON if asked.order.codec == "cloudpickle" else "", options=route.options,
        v=HEADER_SCHEMA, priority=route.priority,
    )
