"""Jobs that one client watches over its WebSocket: what happens to them is pushed, page after page."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from rota.client.errors import LedgerError, Overloaded, RotaError
from rota.client.wire import frames as wire
from rota.client.wire.views import EventsPage

from .happenings import IDLE_S, Streams
from .service import NodeService

log = logging.getLogger("rota.http")

STORE_AWAY_S = 0.5
"""When to ask again a node that the store does not answer."""


class Watches:
    """Of one WebSocket. `send` waits while the client takes nothing, so that each watch holds one page at the most."""

    def __init__(
        self, service: NodeService, streams: Streams, send: Callable[[wire.FromNode], Awaitable[None]]
    ) -> None:
        self._service = service
        self._streams = streams
        self._send = send
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def begin(self, frame: wire.WatchRequest) -> None:
        try:
            self._streams.enter()
        except Overloaded as error:
            await self._send(wire.ErrorFrame(frame.corr, wire.refusal(error)))
            return
        self.end(frame.corr)
        task = asyncio.get_running_loop().create_task(self._push(frame), name="rota watch")
        self._tasks[frame.corr] = task
        task.add_done_callback(lambda done: self._ended(frame.corr, done))

    def end(self, corr: int) -> None:
        if (task := self._tasks.get(corr)) is not None:
            task.cancel()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ended(self, corr: int, task: asyncio.Task[None]) -> None:
        self._streams.leave()
        if self._tasks.get(corr) is task:
            del self._tasks[corr]

    async def _push(self, frame: wire.WatchRequest) -> None:
        try:
            page = EventsPage(next=frame.after)
            while not page.over:
                page = await self._service.news(frame.job, page.next, IDLE_S)
                if page.events or page.over:
                    await self._send(wire.EventsPush(frame.corr, page))
        except Exception as error:
            await self._send(wire.ErrorFrame(frame.corr, told(error, frame)))


def told(error: Exception, frame: wire.FromClient) -> wire.Refusal:
    """Why a request was not carried out, as its client hears it."""
    if isinstance(error, LedgerError):      # nothing was done, or it can be asked for again: of another node
        return wire.refusal(Overloaded("the store (etcd) does not answer this node now", STORE_AWAY_S))
    if not isinstance(error, RotaError):
        log.error("a request failed: %s", type(frame).__name__, exc_info=error)
    return wire.refusal(error)
