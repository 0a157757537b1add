"""The operations of the port: what people do to queues, failed jobs and running jobs, as JSON over POST."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec
from aiohttp import web

from rota.client.errors import InvalidJob
from rota.client.ids import JOB, normal
from rota.client.options import queue_name
from rota.client.views import FailedFilter

from .service import NodeService

T = TypeVar("T")


class Empty(msgspec.Struct, forbid_unknown_fields=True):
    expected: int | None


class Head(msgspec.Struct, forbid_unknown_fields=True):
    verb: Literal["retry", "skip"]


class Which(FailedFilter, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    pass


class Verbs:
    """Handlers; each returns what is answered as JSON."""

    def __init__(self, service: NodeService) -> None:
        self._service = service

    async def set_queue(self, request: web.Request) -> Any:
        changes = await _read(request, dict[str, Any])
        if not changes:
            raise InvalidJob("nothing to change: say paused, serial or max_concurrency")
        return await self._service.set_queue(_queue(request), changes)

    async def empty(self, request: web.Request) -> Any:
        expected = (await _read(request, Empty)).expected
        return {"emptied": await self._service.empty_queue(_queue(request), expected)}

    async def head(self, request: web.Request) -> Any:
        verb = (await _read(request, Head)).verb
        return {"id": await self._service.queue_head(_queue(request), verb)}

    async def retry_failed(self, request: web.Request) -> Any:
        return {"count": await self._service.retry_failed(await _which(request))}

    async def delete_failed(self, request: web.Request) -> Any:
        return {"count": await self._service.delete_failed(await _which(request))}

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


async def _which(request: web.Request) -> FailedFilter:
    which = await _read(request, Which)
    said = bool(which.ids or which.queue or which.task or which.error)
    if said == which.all:
        raise InvalidJob("which failed jobs? Say ids, queue, task or error; or all, and nothing else")
    return FailedFilter(which.ids, normal(which.queue), normal(which.task), which.error, which.all)


async def _read(request: web.Request, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJob(f"the body is not what POST {request.path} takes: {error}") from None
