"""What happens to a job, over HTTP: page by page for programs, or pushed as server-sent events for who asks for
`text/event-stream` (a browser's `EventSource`, `curl -N`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec
from aiohttp import web

from rota.client.errors import LedgerError, Overloaded, RotaError

from .answers import HEADERS, wait_s
from .service import NodeService
from .verbs import job_of

STREAMS_MAX = 500
"""Of one node at a time, pages that wait and what is pushed over WebSockets among them."""
FULL_S = 2.0
"""When to ask again."""
IDLE_S = 10.0
"""A stream on which nothing happens says so that often: proxies close one that is silent."""
SSE = "text/event-stream"


class Streams:
    """How many clients watch jobs through this node, whichever way."""

    def __init__(self) -> None:
        self._open = 0

    def enter(self) -> None:
        """Raises `Overloaded`; else `leave` follows."""
        if self._open >= STREAMS_MAX:
            raise Overloaded(f"{STREAMS_MAX} clients watch jobs through this node already: ask another one", FULL_S)
        self._open += 1

    def leave(self) -> None:
        self._open -= 1

    @contextlib.contextmanager
    def one_more(self) -> Iterator[None]:
        self.enter()
        try:
            yield
        finally:
            self.leave()


class Happenings:
    """Handlers."""

    def __init__(self, service: NodeService, streams: Streams) -> None:
        self._service = service
        self._streams = streams

    async def log(self, request: web.Request) -> Any:
        return await self._service.log(job_of(request))

    async def events(self, request: web.Request) -> Any:
        """A page: what is new behind `after`, as soon as there is something."""
        with self._streams.one_more():
            return await self._service.news(job_of(request), request.query.get("after", ""), wait_s(request))

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Each event is pushed with its kind as its type; the id of the last one is where to go on."""
        job_id, after = job_of(request), request.headers.get("Last-Event-ID") or request.query.get("after", "")
        with self._streams.one_more():
            first = await self._service.news(job_id, after, 0.0)        # what is wrong is answered as ever
            response = web.StreamResponse(headers={**HEADERS, "Content-Type": SSE, "X-Accel-Buffering": "no"})
            await response.prepare(request)
            page = first
            with contextlib.suppress(ConnectionError, RotaError, LedgerError):      # it has gone, or asks again
                while True:
                    await response.write(_written(page.events, page.next))
                    if page.over:
                        break
                    page = await self._service.news(job_id, page.next, IDLE_S)
            return response


def _written(events: list[Any], after: str) -> bytes:
    if not events:
        return b": nothing new\n\n"
    lines = []
    for number, event in enumerate(events, 1):
        at = f"id: {after}\n".encode() if number == len(events) else b""
        lines.append(b"%bevent: %b\ndata: %b\n\n" % (at, event.kind.encode(), msgspec.json.encode(event)))
    return b"".join(lines)


def wants_stream(request: web.Request) -> bool:
    return SSE in request.headers.get("Accept", "")
