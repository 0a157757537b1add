"""A peer that says exactly what a test tells it, byte for byte, and remembers what it was told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from rota.cluster.ledger.http2.connection import Connection, connect
from rota.cluster.ledger.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    Frame,
    FrameReader,
    frame,
    settings_frame,
)

OK_HEADERS = b"\x88\x5f\x10application/grpc"                # :status 200, content-type
OK_TRAILERS = b"\x00\x0bgrpc-status\x010"
EMPTY_TABLE = b"\x20"
"""Begins the first block of a peer that was told to remember nothing."""


def message(body: bytes) -> bytes:
    return b"\x00" + len(body).to_bytes(4, "big") + body


def refusal(code: int, text: str) -> bytes:
    """A block of a call that ended badly, without anything before it."""
    status, words = str(code).encode(), text.encode()
    return b"".join((
        OK_HEADERS, b"\x00\x0bgrpc-status", bytes((len(status),)), status,
        b"\x00\x0cgrpc-message", bytes((len(words),)), words,
    ))


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._frames = FrameReader()
        self._got: list[Frame] = []
        self._first = True

    async def greet(self, *settings: tuple[int, int]) -> None:
        assert await self._reader.readexactly(len(PREFACE)) == PREFACE
        self.say(settings_frame(*settings))

    def say(self, *frames: bytes) -> None:
        self._writer.write(b"".join(frames))

    async def say_slowly(self, text: bytes, size: int) -> None:
        """In pieces, each of which arrives alone."""
        for at in range(0, len(text), size):
            self._writer.write(text[at : at + size])
            await self._writer.drain()
            await asyncio.sleep(0)

    def headers(self, stream: int, block: bytes = OK_HEADERS, flags: int = 0) -> bytes:
        if self._first:
            self._first, block = False, EMPTY_TABLE + block
        return frame(HEADERS, END_HEADERS | flags, stream, block)

    def answer(self, stream: int, body: bytes) -> bytes:
        """The whole of a good answer."""
        return b"".join((
            self.headers(stream), frame(DATA, 0, stream, message(body)),
            self.headers(stream, OK_TRAILERS, END_STREAM),
        ))

    async def next(self, kind: int) -> Frame:
        """The next frame of this kind; others that come before it are kept."""
        while True:
            for at, got in enumerate(self._got):
                if got.kind == kind:
                    return self._got.pop(at)
            data = await self._reader.read(1 << 20)
            if not data:
                raise ConnectionError("the client has hung up")
            self._got += self._frames.feed(data)

    async def request(self) -> tuple[int, bytes]:
        """The next call whose request is whole, if it fits one frame: its stream and its message."""
        got = await self.next(DATA)
        return got.stream, got.payload[5:]

    async def hangs_up(self) -> None:
        while await self._reader.read(1 << 20):
            pass

    def close(self) -> None:
        self._writer.close()


Script: TypeAlias = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def listening(*scripts: Script) -> AsyncIterator[str]:
    """Serves one connection after the other by these scripts; the last one serves all that follow. Yields where. An
    error of a script is raised at the end."""
    left, running = list(scripts), []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = left.pop(0) if len(left) > 1 else left[0]
        peer = Peer(reader, writer)
        running.append(asyncio.ensure_future(script(peer)))
        try:
            await asyncio.wait([running[-1]])
        finally:
            peer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        failures = [task.exception() for task in running if task.done() and not task.cancelled()]
        for failure in filter(None, failures):
            if not isinstance(failure, ConnectionError):
                raise failure
    finally:
        for task in running:
            task.cancel()
        server.close()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.sleep(0)


@asynccontextmanager
async def connected(script: Script, *settings: tuple[int, int]) -> AsyncIterator[Connection]:
    """A connection to a peer that greets, then does as the script says."""

    async def whole(peer: Peer) -> None:
        await peer.greet(*settings)
        await script(peer)

    async with listening(whole) as target:
        connection = await connect(target, timeout_s=5)
        try:
            yield connection
        finally:
            connection.close()
