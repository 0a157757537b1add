"""What is done to many jobs at once: begun with a POST, looked at with GETs. Each is a bulk operation with an id."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from rota.client.errors import InvalidJob
from rota.client.ids import normal
from rota.client.options.checks import queue_name
from rota.client.wire.views import FailedFilter, Verb

from .answers import json_page, wait_s
from .service import NodeService
from .verbs import read

ENDS_SOON_S = 2.0
"""A POST waits so long for the end (or as `?wait=` says): most operations are over by then."""


class Empty(msgspec.Struct, forbid_unknown_fields=True):
    expected: int | None


class Which(FailedFilter, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    pass


class ToCancel(msgspec.Struct, forbid_unknown_fields=True):
    queue: str = ""
    task: str = ""
    all: bool = False


class Many:
    """Handlers. A POST answers 200 with the operation if it has ended, 202 if it goes on, 400 if it was refused."""

    def __init__(self, service: NodeService) -> None:
        self._service = service

    async def retry_failed(self, request: web.Request) -> web.Response:
        return await self._begin(request, "retry", await _which(request))

    async def delete_failed(self, request: web.Request) -> web.Response:
        return await self._begin(request, "delete", await _which(request))

    async def empty(self, request: web.Request) -> web.Response:
        expected = (await read(request, Empty)).expected
        if expected is not None and expected < 0:
            raise InvalidJob(f"expected={expected}: there are no fewer than 0 jobs in a queue")
        which = FailedFilter(queue=queue_name(request.match_info["queue"]))
        return await self._begin(request, "empty", which, expected)

    async def cancel(self, request: web.Request) -> web.Response:
        which = await read(request, ToCancel)
        if bool(which.queue or which.task) == which.all:
            raise InvalidJob("which jobs? Say queue or task, or both; or all, and nothing else")
        chosen = FailedFilter(queue=normal(which.queue), task=normal(which.task), all=which.all)
        return await self._begin(request, "cancel", chosen)

    async def one(self, request: web.Request) -> Any:
        return await self._service.operation(request.match_info["operation"], wait_s(request))

    async def all(self, _request: web.Request) -> Any:
        return await self._service.operations()

    async def _begin(
        self, request: web.Request, verb: Verb, which: FailedFilter, expected: int | None = None
    ) -> web.Response:
        name = await self._service.begin(verb, which, expected)
        view = await self._service.operation(name, wait_s(request, ENDS_SOON_S))
        if view.state == "refused":
            raise InvalidJob(view.why)
        if view.is_over:
            return json_page(view)
        return json_page(view, status=202, headers={"Location": f"/v1/operations/{name}"})


async def _which(request: web.Request) -> FailedFilter:
    which = await read(request, Which)
    selects = bool(which.ids or which.queue or which.task or which.error)
    if selects == which.all:
        raise InvalidJob("which failed jobs? Say ids, queue, task or error; or all, and nothing else")
    return FailedFilter(which.ids, normal(which.queue), normal(which.task), which.error, which.all)
