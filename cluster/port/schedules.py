"""The schedules of the port, as JSON: list, put, pause, resume, run now, delete."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from rota.client.errors import InvalidJob
from rota.client.ids import template_id
from rota.client.model import ScheduleInfo
from rota.client.wire.views import NewSchedule

from .answers import json_page, limit_of, listed
from .calls import Calls, JsonCall
from .service import NodeService
from .verbs import read

LISTED_MAX = 200
FIELDS = {"template", *JsonCall.__struct_fields__, *ScheduleInfo.__struct_fields__}


class SchedulePages:
    """Handlers."""

    def __init__(self, service: NodeService, calls: Calls) -> None:
        self._service = service
        self._calls = calls

    async def list(self, request: web.Request) -> web.Response:
        limit = limit_of(request, LISTED_MAX)
        views = await self._service.schedules.list(request.query.get("after", ""), limit)
        return listed(request, views, views[-1].name if len(views) == limit else "")

    async def get(self, request: web.Request) -> web.Response:
        return json_page(await self._service.schedules.get(_name(request)))

    async def put(self, request: web.Request) -> web.Response:
        """A template of rota's own clients; or, from any program, a call in JSON."""
        name, given = _name(request), await read(request, dict[str, Any])
        if unknown := sorted(given.keys() - FIELDS):
            raise InvalidJob(f"a schedule has no {', '.join(unknown)}; it has {', '.join(sorted(FIELDS))}")
        if "template" in given:
            return json_page(await self._service.schedules.put(name, await read(request, NewSchedule)))
        info = await read(request, ScheduleInfo)
        call = await read(request, JsonCall)
        template = self._calls.body(*await self._calls.header(template_id(name), call, priority=info.priority))
        new = NewSchedule(template=template, **msgspec.structs.asdict(info))
        return json_page(await self._service.schedules.put(name, new))

    async def pause(self, request: web.Request) -> web.Response:
        return json_page(await self._service.schedules.pause(_name(request)))

    async def resume(self, request: web.Request) -> web.Response:
        return json_page(await self._service.schedules.resume(_name(request)))

    async def run_now(self, request: web.Request) -> web.Response:
        return json_page({"id": await self._service.schedules.run_now(_name(request))})

    async def delete(self, request: web.Request) -> web.Response:
        await self._service.schedules.delete(_name(request))
        return json_page({"deleted": _name(request)})


def _name(request: web.Request) -> str:
    return request.match_info["schedule"]
