"""The schedules of the port, as JSON: list, put, pause, resume, run now, delete."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from rota.client.codec import Keyring, encode_body
from rota.client.errors import InvalidJob, JobTooLarge, UnknownTask
from rota.client.ids import template_id
from rota.client.model import BUNDLE_BYTES_MAX, Header
from rota.client.options import queue_name
from rota.client.views import NewSchedule

from .service import ScheduleService
from .verbs import read

LISTED_MAX = 200


class Told(msgspec.Struct, forbid_unknown_fields=True):
    """A schedule as any program may put it: a task's name, and arguments in JSON instead of a template."""

    task: str
    args: msgspec.Raw = msgspec.Raw(b"[]")
    kwargs: msgspec.Raw = msgspec.Raw(b"{}")
    queue: str = "default"
    priority: int = 0
    cron: str | None = None
    tz: str | None = None
    every_s: float | None = None
    jitter_s: float = 0.0
    catch_up: str = "latest"
    overlap: str = "allow"


class SchedulePages:
    """Handlers; each returns what is answered as JSON."""

    def __init__(
        self, service: Callable[[], ScheduleService], mode_of: Callable[[str], Any], cluster: Callable[[], str],
        keyring: Keyring, wall: Callable[[], float] = time.time,
    ) -> None:
        self._service = service
        self._mode_of = mode_of
        self._cluster = cluster
        self._keyring = keyring
        self._wall = wall

    async def list(self, request: web.Request) -> Any:
        try:
            limit = int(request.query.get("limit", str(LISTED_MAX)))
        except ValueError:
            raise InvalidJob("limit is not a number") from None
        return await self._service().list(request.query.get("after", ""), max(1, min(limit, LISTED_MAX)))

    async def get(self, request: web.Request) -> Any:
        return await self._service().get(_name(request))

    async def put(self, request: web.Request) -> Any:
        """A template of rota's own clients, or a task and its arguments as JSON."""
        said = await read(request, dict[str, Any])
        if "template" in said:
            return await self._service().put(_name(request), await read(request, NewSchedule))
        told = await read(request, Told)
        new = NewSchedule(
            await self._template(_name(request), told), told.cron, told.tz, told.every_s, told.jitter_s, told.catch_up,
            told.overlap, told.priority,
        )
        return await self._service().put(_name(request), new)

    async def pause(self, request: web.Request) -> Any:
        return await self._service().pause(_name(request))

    async def resume(self, request: web.Request) -> Any:
        return await self._service().resume(_name(request))

    async def run_now(self, request: web.Request) -> Any:
        return {"id": await self._service().run_now(_name(request))}

    async def delete(self, request: web.Request) -> Any:
        await self._service().delete(_name(request))
        return {"deleted": _name(request)}

    async def _template(self, name: str, told: Told) -> bytes:
        mode = await self._mode_of(told.task)
        if mode is None:
            raise UnknownTask(f"no node has ever registered {told.task!r:.200}")
        payload = b'{"args":%b,"kwargs":%b}' % (bytes(told.args), bytes(told.kwargs))
        if len(payload) > BUNDLE_BYTES_MAX:
            raise JobTooLarge(len(payload), BUNDLE_BYTES_MAX)
        header = Header(
            bundle=template_id(name), task=told.task, queue=queue_name(told.queue), mode=mode, indexes=[0],
            sizes=[len(payload)], enqueued_at=self._wall(), codec="json",
        )
        return encode_body(self._keyring.sign(header, [payload], self._cluster()), [payload])


def _name(request: web.Request) -> str:
    return request.match_info["schedule"]
