"""A TCP proxy on loopback with faults that are switched on and off: what stands between a node and its etcd.

    async with Proxy(server.client_port) as proxy:
        ...                                 # connect to proxy.endpoint
        proxy.set(Mode.MUTE)
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from enum import Enum
from types import TracebackType
from typing import Self

CHUNK_BYTES = 64 * 1024


class Mode(Enum):
    PASS = "pass"
    BLACKHOLE = "blackhole"
    """Nothing goes either way, and nothing is closed. New connections are accepted, and silent. Bytes are held, not
    lost: back to PASS they flow on, as after a stall of the network."""
    MUTE = "mute"
    """Requests arrive, answers are held: with RESET after it, a write that was applied and never answered."""
    RESET = "reset"
    """Connections are cut off (RST), new ones as well."""
    REFUSE = "refuse"
    """Connections are cut off and nobody listens: "connection refused"."""


class Proxy:
    """Forwards to a port of 127.0.0.1. `endpoint` stays the same through all modes."""

    def __init__(self, target_port: int, *, delay_s: float = 0.0) -> None:
        self.target_port = target_port
        self.delay_s = delay_s
        self.port = 0
        self.accepted = 0
        self._mode = Mode.PASS
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._handlers: set[asyncio.Task[None]] = set()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def set(self, mode: Mode) -> None:
        self._mode = mode
        _switch(self._up, mode in (Mode.PASS, Mode.MUTE))
        _switch(self._down, mode is Mode.PASS)
        if mode in (Mode.RESET, Mode.REFUSE):
            self.cut()
        if mode is Mode.REFUSE:
            await self._stop_listening()
        elif self._server is None:
            await self._listen()

    def cut(self) -> None:
        """Reset all connections there are; the mode stays."""
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        await self.set(Mode.PASS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop_listening()
        self.cut()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server:
            self._server.close()
            self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        self._writers.add(writer)
        target = None
        try:
            if self._mode is Mode.RESET:
                return
            await self._up.wait()
            far_reader, target = await asyncio.open_connection("127.0.0.1", self.target_port)
            self._writers.add(target)
            pumps = [
                asyncio.ensure_future(self._pump(reader, target, self._up)),
                asyncio.ensure_future(self._pump(far_reader, writer, self._down)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass        # a handler's end is its connection's end, whatever the reason
        finally:
            for end in filter(None, (writer, target)):
                self._writers.discard(end)
                end.transport.abort()
            self._handlers.discard(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await gate.wait()
                sink.write(data)
                await sink.drain()


def _switch(event: asyncio.Event, on: bool) -> None:
    if on:
        event.set()
    else:
        event.clear()
