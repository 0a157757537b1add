"""What people do to one queue or one job, as JSON over POST."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec
from aiohttp import web

from rota.client.errors import InvalidJob
from rota.client.ids import JOB
from rota.client.model import UNREADABLE
from rota.client.options import queue_name

from .service import NodeService

T = TypeVar("T")


class Head(msgspec.Struct, forbid_unknown_fields=True):
    verb: Literal["retry", "skip"]


class Verbs:
    """Handlers; each returns what is answered as JSON."""

    def __init__(self, service: NodeService) -> None:
        self._service = service

    async def set_queue(self, request: web.Request) -> Any:
        changes = await read(request, dict[str, Any])
        if not changes:
            raise InvalidJob("nothing to change: say paused, serial or max_concurrency")
        return await self._service.set_queue(_queue(request), changes)

    async def head(self, request: web.Request) -> Any:
        verb = (await read(request, Head)).verb
        return {"id": await self._service.queue_head(_queue(request), verb)}

    async def cancel(self, request: web.Request) -> Any:
        return {"outcome": await self._service.cancel(job_of(request))}


def job_of(request: web.Request) -> str:
    """The id in the path."""
    job_id = f"{request.match_info['bundle']}/{request.match_info['index']}"
    if not JOB.match(job_id):
        raise InvalidJob(f"{job_id!r:.60} is not a valid job id; one looks like k3f9q2m7xa5t-0000001f/0")
    return job_id


def _queue(request: web.Request) -> str:
    return queue_name(request.match_info["queue"])


async def read(request: web.Request, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except UNREADABLE as error:
        raise InvalidJob(f"the body is not what POST {request.path} takes: {error}") from None
