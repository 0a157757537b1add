"""Who gets in: connections are accepted here, so that no stranger can keep the owner out.

A connection is a stranger's until a request on it has shown the token. Strangers get a part of the descriptors, and a
short time; where too many are there at once, a newcomer takes the place of the oldest. So a thousand connections that
say nothing, or a byte now and then, cost an owner nothing: he says who he is at once. What is left of the descriptors
is the node's own (for the store, for its runners).
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
from contextlib import suppress
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from ..events.sparse import Sparse

log = logging.getLogger("rota.http")

TRUSTED_MAX = 1_000
"""Connections that have shown the token, at most half of the descriptors. A client process needs one."""

STRANGERS_MIN, STRANGERS_MAX = 8, 256
"""Connections that have not: an eighth of the descriptors, within these bounds."""

STRANGER_S = 10.0
"""They live no longer, whatever they do: a TLS handshake, a head that comes byte by byte, or one health check after the
other (those come again)."""

HEAD_BYTES_MAX = 64 * 1024
KEEPALIVE_S = 75.0
"""Between two requests of somebody who has shown it."""

LOOK_S = 1.0
BACKLOG = 128
FULL_S = 0.05
"""Where the process has no descriptor left, nothing is accepted for so long."""


class Connection(web.RequestHandler):
    """aiohttp's own protocol, and what the gate has to know of it."""

    def __init__(self, gate: Gate, server: web.Server, **options: Any) -> None:
        super().__init__(server, **options)
        self.gate = gate
        self.since = gate.loop.time()
        self.trusted = False
        self._head: bytearray | None = bytearray()      # what has come of the first request's head; None: all of it

    def data_received(self, data: bytes) -> None:
        if self._head is not None and self._is_too_long(self._head, data):
            self.gate.turn_away(self, "a connection without the token sent too long a head")
            return
        super().data_received(data)

    def _is_too_long(self, head: bytearray, data: bytes) -> bool:
        head += data[:HEAD_BYTES_MAX]
        if b"\r\n\r\n" in head:
            self._head = None
            return False
        return len(head) > HEAD_BYTES_MAX

    def connection_lost(self, exc: BaseException | None) -> None:
        self.gate.forget(self)
        super().connection_lost(exc)

    def abort(self) -> None:
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()
        self.force_close()


class Gate:
    """`open`, and connections go to `server` until `close`."""

    def __init__(self, server: web.Server, *, tls: ssl.SSLContext | None = None) -> None:
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if descriptors == resource.RLIM_INFINITY:
            descriptors = 1 << 20
        self.trusted_max = min(TRUSTED_MAX, descriptors // 2)
        self.strangers_max = max(STRANGERS_MIN, min(STRANGERS_MAX, descriptors // 8))
        self.loop = asyncio.get_running_loop()
        self._server = server
        self._tls = tls
        self._listeners: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._arriving: dict[Connection, asyncio.Task[None]] = {}
        self._strangers: dict[Connection, None] = {}        # oldest first
        self._trusted: set[Connection] = set()
        self._logged: dict[str, Sparse] = {}
        self._logger = logging.Logger("rota.http.server")
        self._logger.parent = log
        self._logger.addFilter(self._is_news)

    async def open(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError."""
        try:
            for family, kind, proto, _, address in await self.loop.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                listener = socket.socket(family, kind, proto)
                self._listeners.append(listener)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind(address)
                listener.listen(BACKLOG)
                listener.setblocking(False)
        except OSError:
            await self.close()
            raise
        self._tasks = [
            self.loop.create_task(self._accept(listener), name="http-accept") for listener in self._listeners
        ]
        self._tasks.append(self.loop.create_task(self._look(), name="http-gate"))
        number: int = self._listeners[0].getsockname()[1]
        return number

    async def close(self) -> None:
        """Nobody else gets in. Those who are in are the server's affair."""
        tasks = [*self._tasks, *self._arriving.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()

    # -- coming in ---------------------------------------------------------------------------------------------------

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                accepted, _ = await self.loop.sock_accept(listener)
            except OSError:
                self.note("a connection could not be accepted: no descriptor is left")
                self._make_room()
                await asyncio.sleep(FULL_S)
                continue
            if len(self._strangers) >= self.strangers_max:
                self._make_room()
            connection = Connection(
                self, self._server, loop=self.loop, keepalive_timeout=KEEPALIVE_S, lingering_time=1.0,
                access_log=None, logger=self._logger,
            )
            self._strangers[connection] = None
            task = self.loop.create_task(self._admit(connection, accepted), name="http-admit")
            self._arriving[connection] = task
            task.add_done_callback(partial(self._admitted, connection, accepted))

    async def _admit(self, connection: Connection, accepted: socket.socket) -> None:
        options: dict[str, Any] = {"ssl": self._tls, "ssl_handshake_timeout": STRANGER_S} if self._tls else {}
        with suppress(OSError):             # it has gone, or speaks no TLS
            await self.loop.connect_accepted_socket(lambda: connection, accepted, **options)

    def _admitted(self, connection: Connection, accepted: socket.socket, _: asyncio.Task[None]) -> None:
        """Or not: it may have been turned away before it was in."""
        del self._arriving[connection]
        if connection.transport is None:
            self.forget(connection)
            accepted.close()

    # -- let in, or turned away --------------------------------------------------------------------------------------

    def trust(self, connection: web.RequestHandler) -> bool:
        """A request on it has shown the token. False: there are too many of those, and this one must go."""
        if not isinstance(connection, Connection) or connection.trusted:
            return True
        if len(self._trusted) >= self.trusted_max:
            return False
        connection.trusted = True
        self._strangers.pop(connection, None)
        self._trusted.add(connection)
        return True

    def note(self, what: str) -> None:
        """Say it; a flood of it once a minute, with a count. (`what`: our own words, which are kept.)"""
        self._logged.setdefault(what, Sparse(log)).warn("the port: %s", what)

    def turn_away(self, connection: Connection, why: str) -> None:
        self.note(why)
        self.forget(connection)
        arriving = self._arriving.get(connection)
        if arriving is not None:
            arriving.cancel()
        connection.abort()

    def forget(self, connection: Connection) -> None:
        self._strangers.pop(connection, None)
        self._trusted.discard(connection)

    def _make_room(self) -> None:
        oldest = next(iter(self._strangers), None)
        if oldest is not None:
            self.turn_away(oldest, "a connection without the token made room for newer ones")

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            late = self.loop.time() - STRANGER_S
            for connection in [connection for connection in self._strangers if connection.since < late]:
                self.turn_away(connection, "a connection did not show the token in time")

    def _is_news(self, record: logging.LogRecord) -> bool:
        """What is no HTTP is no news, and comes with a traceback for each."""
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else record.exc_info
        if isinstance(error, HttpProcessingError):
            self.note("a request is no HTTP")
            return False
        return True
