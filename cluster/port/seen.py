"""What is to be seen of a cluster, beside its jobs: metrics, the overview, its history, and events as they happen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from rota.client.errors import InvalidJob, RotaError

from ..telemetry.feed import Listener, TooMany
from ..telemetry.records import Happened
from ..telemetry.telemetry import Telemetry
from .answers import HEADERS, json_page, refuse

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HISTORY_MAX = 200
PULSE_S = 1.0
"""How often a stream looks whether what a page shows has changed; only then it says so."""

COMMENT_S = 15.0
"""A stream without news says this often that it lives."""

REFRESH_S = 10.0
BATCH_MAX = 100


class SeenPages:
    """A `Site` that lets nobody in by itself."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._streams: set[asyncio.Task[None]] = set()

    def add_to(self, app: web.Application) -> None:
        app.on_shutdown.append(self._end_streams)
        router = app.router
        router.add_get("/metrics", self._metrics)
        router.add_get("/v1/overview", self._overview)
        router.add_get("/v1/history", _answering(self._history))
        router.add_get("/v1/events", self._events)

    def admits(self, request: web.Request) -> bool:
        return False

    def is_open(self, request: web.Request) -> bool:
        return False

    def shown_in(self, request: web.Request) -> web.StreamResponse | None:
        return None

    async def _metrics(self, _request: web.Request) -> web.Response:
        body = await self._telemetry.metrics()
        return web.Response(body=body, headers=HEADERS | {"Content-Type": CONTENT_TYPE})

    async def _overview(self, _request: web.Request) -> web.Response:
        return json_page(await self._telemetry.overview())

    async def _history(self, request: web.Request) -> web.StreamResponse:
        text = request.query.get("limit", "100")
        if not text.isdecimal() or not 0 < int(text[:9]) <= HISTORY_MAX:
            raise InvalidJob(f"limit={text!r:.40} is not valid: 1 to {HISTORY_MAX}")
        return json_page(self._telemetry.history(int(text)))

    # -- the stream --------------------------------------------------------------------------------------------------

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events, until the client goes or the port closes."""
        headers = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=HEADERS | headers)
        try:
            with self._telemetry.feed.listen(jobs=request.query.get("jobs") == "1") as listener:
                with contextlib.suppress(ConnectionError):      # it has gone already
                    await response.prepare(request)
                    await response.write(b": rota\n\n")
                stream = asyncio.create_task(self._serve(response, listener), name="event-stream")
                self._streams.add(stream)
                try:
                    await asyncio.wait([stream])
                finally:
                    stream.cancel()
                    self._streams.discard(stream)
        except TooMany as error:
            return refuse(503, "Overloaded", str(error), headers={"Retry-After": "5"})
        return response

    async def _end_streams(self, _app: web.Application) -> None:
        """The port closes: whoever listens asks the next node."""
        for stream in self._streams:
            stream.cancel()

    async def _serve(self, response: web.StreamResponse, listener: Listener) -> None:
        with contextlib.suppress(ConnectionError):
            await self._tell(response, listener)

    async def _tell(self, response: web.StreamResponse, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        pulse, spoke, asked = self._telemetry.pulse(), loop.time(), 0.0
        while True:
            if loop.time() >= asked + REFRESH_S:
                await self._telemetry.ask()
                asked = loop.time()
            news = await _news(listener)
            text = b"".join(map(_event, news))
            if listener.missed:
                text += _message("missed", {"count": listener.missed})
                listener.missed = 0
            now = self._telemetry.pulse()
            if now != pulse:
                text += _message("pulse", {})
                pulse = now
            if not text and loop.time() >= spoke + COMMENT_S:
                text = b": still here\n\n"
            if text:
                await response.write(text)
                spoke = loop.time()


async def _news(listener: Listener) -> list[Happened]:
    """What has happened within the next second, as soon as something has."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PULSE_S):
            news = [await listener.queue.get()]
        while not listener.queue.empty() and len(news) < BATCH_MAX:
            news.append(listener.queue.get_nowait())
        return news
    return []


def _event(happened: Happened) -> bytes:
    return _message(happened.event, happened)


def _message(name: str, data: object) -> bytes:
    """JSON holds no line ends, so nobody's text can forge a message. Names are letters."""
    name = "".join(char for char in name if char.isascii() and (char.isalnum() or char == "_"))
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))


def _answering(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except RotaError as error:
            return refuse(400, type(error).__name__, str(error))

    return answer
