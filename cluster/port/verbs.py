"""What people do to one queue or one job, as JSON over POST."""

from __future__ import annotations

import logging
import time
from typing import Any, Literal, TypeVar

import msgspec
from aiohttp import web

from rota.client.errors import InvalidJob
from rota.client.ids import job_id, parse_job_id
from rota.client.model import UNREADABLE
from rota.client.options.checks import queue_name

from .service import NodeService

log = logging.getLogger("rota.http")

T = TypeVar("T")

LINES_PER_MINUTE = 30

JOB_PATHS = ("/v1/jobs/{id}", "/v1/jobs/{bundle}/{index}")
"""The second one: ids were written with a slash once."""


class Head(msgspec.Struct, forbid_unknown_fields=True):
    verb: Literal["retry", "skip"]


class Allowance:
    """So many a minute. One that is refused is counted, and said with the next."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._began = 0.0
        self._taken = 0

    def take(self) -> bool:
        now = time.monotonic()
        if now - self._began >= 60.0:
            if self._taken > self._per_minute:
                log.info("%d more lines about what people did were left out", self._taken - self._per_minute)
            self._began, self._taken = now, 0
        self._taken += 1
        return self._taken <= self._per_minute


class Verbs:
    """Handlers; each returns what is answered as JSON."""

    def __init__(self, service: NodeService) -> None:
        self._service = service
        self._lines = Allowance(LINES_PER_MINUTE)

    async def set_queue(self, request: web.Request) -> Any:
        changes = await read(request, dict[str, Any])
        if not changes:
            raise InvalidJob("nothing to change: say paused, serial, max_concurrency, rate, max_waiting or on_full")
        settings = await self._service.set_queue(_queue(request), changes)
        self._log("queue %s is set: %s", _queue(request), changes)
        return settings

    async def head(self, request: web.Request) -> Any:
        verb = (await read(request, Head)).verb
        job_id = await self._service.queue_head(_queue(request), verb)
        self._log("%s: the head of queue %s, job %s", verb, _queue(request), job_id)
        return {"id": job_id}

    async def cancel(self, request: web.Request) -> Any:
        outcome = await self._service.cancel(job_of(request))
        self._log("job %s: %s", job_of(request), outcome)
        return {"outcome": outcome}

    def _log(self, text: str, *arguments: object) -> None:
        """What people do leaves a line, and no flood."""
        if self._lines.take():
            log.info(text, *arguments)


def job_of(request: web.Request) -> str:
    """The id in the path."""
    asked = request.match_info
    return normal_id(asked["id"] if "id" in asked else f"{asked['bundle']}/{asked['index']}")


def normal_id(text: str) -> str:
    """As ids are written now. Raises `InvalidJob`."""
    try:
        return job_id(*parse_job_id(text))
    except ValueError as error:
        raise InvalidJob(str(error)) from None


def _queue(request: web.Request) -> str:
    return queue_name(request.match_info["queue"])


async def read(request: web.Request, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except UNREADABLE as error:
        raise InvalidJob(f"the body is not what POST {request.path} takes: {error}") from None
