"""One connection to one member: its calls, its time, its end.

Belongs to the event loop that it was made on. Whatever ends it ends all its calls, each with what is known of it: one
that the peer has certainly not begun with says so (`RpcFailed.sent`).
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from grpc import StatusCode

from ..members import RpcFailed
from .calls import WINDOW, Stream, Unary
from .frames import (
    ACK,
    CANCEL,
    DATA,
    DEFAULT_WINDOW,
    ENABLE_PUSH,
    END_STREAM,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    NO_ERROR,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_MAX,
    WINDOW_UPDATE,
    Frame,
    FrameReader,
    PeerError,
    frame,
    goaway_frame,
    goaway_in,
    settings_frame,
    settings_in,
    to_u32,
    u32,
)
from .headers import LIST_BYTES_MAX, HeaderReader, status_in, time_limit
from .open_calls import OpenCalls
from .pings import Pings
from .sending import Sender

STOOD_STILL_S = 1.0
"""A timer that comes later than this found a loop that stood still: what has come meanwhile is read first."""


class Connection(asyncio.Protocol):
    """`greeted` is done when the peer's settings have come."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.greeted: asyncio.Future[None] = self.loop.create_future()
        self.lost: RpcFailed | None = None
        self.draining = False
        """The peer takes no new calls; those that are open may end."""
        self._transport: asyncio.Transport
        self._sender: Sender
        self._pings: Pings
        self._frames = FrameReader()
        self._headers = HeaderReader()
        self._open = OpenCalls()
        self._calls = self._open.by_stream
        self._received = 0
        self._timer: asyncio.TimerHandle | None = None
        self._do = {
            HEADERS: self._on_headers, SETTINGS: self._on_settings, PING: self._on_ping, GOAWAY: self._on_goaway,
            WINDOW_UPDATE: self._on_window, RST_STREAM: self._on_reset,
        }

    @property
    def usable(self) -> bool:
        """Whether a call may be begun."""
        return self.lost is None and not self.draining

    # What the application does.

    async def unary(self, block: bytes, body: bytes, timeout_s: float) -> bytes:
        """The one answer to a call. Raises `RpcFailed`."""
        self._refuse_if_over()
        call = Unary(self.loop.create_future(), self.loop.time() + timeout_s, self._widen)
        if len(self._calls) >= self._open.streams_max:
            self._open.waiting.append((call, block, body))
        else:
            self._begin(call, block + time_limit(timeout_s), body)
        if self._timer is None or self._timer.when() > call.deadline:
            self._arm()
        try:
            return await call.answer
        except asyncio.CancelledError:
            self._reset(call)
            raise

    def stream(self, block: bytes) -> Stream:
        """Raises `RpcFailed`."""
        self._refuse_if_over()
        stream = Stream(self._number(), self._sender.initial_window, self._widen, self._message, self._reset)
        self._calls[stream.stream] = stream
        self._sender.open(stream, block, None)
        if self._timer is None:
            self._arm()
        return stream

    def close(self) -> None:
        if self.lost is None:
            self._lose(RpcFailed(StatusCode.UNKNOWN, "the connection was closed before the answer came"))

    def _refuse_if_over(self) -> None:
        if not self.usable:
            raise RpcFailed(StatusCode.UNAVAILABLE, "the connection takes no calls any more", sent=False)

    def _begin(self, call: Unary, block: bytes, body: bytes) -> None:
        call.stream = self._number()
        call.window = self._sender.initial_window
        self._calls[call.stream] = call
        self._sender.open(call, block, body)

    def _number(self) -> int:
        number = self._open.number()
        if self._open.is_used_up:
            self.draining = True
        return number

    def _message(self, stream: Stream, body: bytes) -> None:
        self._sender.message(stream, body, last=False)

    def _widen(self, stream: int, step: int) -> None:
        if self.lost is None:
            self._transport.write(frame(WINDOW_UPDATE, 0, stream, u32(step)))

    def _reset(self, call: Unary | Stream) -> None:
        call.over = True
        if self._calls.get(call.stream) is call and self.lost is None:
            self._transport.write(frame(RST_STREAM, 0, call.stream, u32(CANCEL)))
            self._ended(call.stream)

    def _ended(self, stream: int) -> None:
        del self._calls[stream]
        while (waiting := self._open.next_waiting()) is not None:
            call, block, body = waiting
            self._begin(call, block + time_limit(call.deadline - self.loop.time()), body)
        if self.draining and not self._calls:
            self.close()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._sender = Sender(self._transport)
        self._pings = Pings(self._transport, self.loop)
        self._transport.write(PREFACE + settings_frame(
            (HEADER_TABLE_SIZE, 0), (ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, WINDOW),
            (MAX_HEADER_LIST_SIZE, LIST_BYTES_MAX),
        ) + frame(WINDOW_UPDATE, 0, 0, u32(WINDOW_MAX - DEFAULT_WINDOW)))

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(RpcFailed(StatusCode.UNAVAILABLE, f"the connection was lost: {error or 'closed by the peer'}"))

    def pause_writing(self) -> None:
        self._sender.pause()

    def resume_writing(self) -> None:
        self._sender.resume()

    def data_received(self, data: bytes) -> None:
        self._pings.heard_at = self.loop.time()
        try:
            for got in self._frames.feed(data):
                if self.lost is not None:       # by what came before
                    return
                if got.kind == DATA:
                    self._on_data(got)
                else:
                    self._do[got.kind](got)
        except PeerError as error:
            self._lose(RpcFailed(StatusCode.INTERNAL, f"the peer broke HTTP/2: {error}"), error.code)

    # What the peer says.

    def _on_data(self, got: Frame) -> None:
        call = self._open.of(got)
        if call is not None:
            call.data(got.payload, got.size)
            if got.flags & END_STREAM:
                self._ended(got.stream)
                call.end({})
        self._received += got.size
        if self._received > WINDOW_MAX // 2:
            self._widen(0, self._received)
            self._received = 0

    def _on_headers(self, got: Frame) -> None:
        fields = self._headers.read(got.payload)
        call = self._open.of(got)
        if call is None:
            return
        if got.flags & END_STREAM:
            self._ended(got.stream)
            call.end(fields)
        elif fields.get(":status", "200") != "200" and not fields[":status"].startswith("1"):
            self._transport.write(frame(RST_STREAM, 0, got.stream, u32(CANCEL)))
            self._ended(got.stream)
            call.fail(RpcFailed(*status_in(fields)))

    def _on_reset(self, got: Frame) -> None:
        call, code = self._open.of(got), to_u32(got.payload)
        if call is not None:
            self._ended(got.stream)
            call.fail(RpcFailed(
                StatusCode.UNAVAILABLE, f"the peer reset the call (HTTP/2 error {code})", sent=code != REFUSED_STREAM
            ))

    def _on_window(self, got: Frame) -> None:
        call = self._open.of(got) if got.stream else None
        if call is not None or not got.stream:
            self._sender.widened(call, to_u32(got.payload) & WINDOW_MAX)

    def _on_settings(self, got: Frame) -> None:
        if got.flags & ACK:
            return
        for name, value in settings_in(got.payload):
            if name == MAX_CONCURRENT_STREAMS:
                self._open.streams_max = value
            elif name == INITIAL_WINDOW_SIZE:
                self._sender.resize(value, self._calls.values())
            elif name == MAX_FRAME_SIZE:
                self._sender.frame_max(value)
            elif name == ENABLE_PUSH and value:
                raise PeerError(PROTOCOL_ERROR, "a server that wants to be pushed to")
        self._transport.write(frame(SETTINGS, ACK, 0))
        if not self.greeted.done():
            self.greeted.set_result(None)

    def _on_ping(self, got: Frame) -> None:
        self._pings.on_ping(got)

    def _on_goaway(self, got: Frame) -> None:
        last, code, why = goaway_in(got.payload)
        self.draining = True
        unsent = RpcFailed(StatusCode.UNAVAILABLE, f"the peer goes away ({why or f'HTTP/2 error {code}'})", sent=False)
        self._open.fail_above(last, unsent)
        if not self._calls:
            self.close()

    # What time does.

    def _arm(self) -> None:
        """Wake when the first call is over its time, or when the peer has been silent for too long."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self.lost is not None or not self._open:
            return
        due = max(min(self._pings.due, self._open.first_deadline), self.loop.time() + 0.01)
        self._timer = self.loop.call_at(due, self._on_time)

    def _on_time(self) -> None:
        assert self._timer is not None
        now = self.loop.time()
        if now > self._timer.when() + STOOD_STILL_S:
            self._timer = self.loop.call_later(0.05, self._on_time)
            return
        self._end_late(now)
        if not self._pings.is_answered(now):
            self._lose(RpcFailed(StatusCode.UNAVAILABLE, "the connection was lost: no answer to a ping"))
            return
        if self._open:
            self._pings.ask(now)
        self._arm()

    def _end_late(self, now: float) -> None:
        for call in self._open.late(now):
            self._transport.write(frame(RST_STREAM, 0, call.stream, u32(CANCEL)))
            call.fail(RpcFailed(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))
            self._ended(call.stream)
        self._open.fail_late_waiting(now)

    def _lose(self, why: RpcFailed, code: int = NO_ERROR) -> None:
        if self.lost is not None:
            return
        self.lost = why
        if self._timer is not None:
            self._timer.cancel()
        self._pings.stop()
        self._open.fail_all(why)
        if not self.greeted.done():
            self.greeted.set_exception(RpcFailed(why.code, why.details, sent=False))
            self.greeted.exception()        # whoever connects may have given up
        if not self._transport.is_closing():
            self._transport.write(goaway_frame(code))
            # (A peer that takes nothing any more would be waited for.)
            if self._transport.get_write_buffer_size():
                self._transport.abort()
            else:
                self._transport.close()


async def connect(
    target: str, *, tls: ssl.SSLContext | None = None, server_name: str | None = None, timeout_s: float
) -> Connection:
    """A connection whose peer has greeted, to "host:port" or "unix:/path". Raises `OSError` (`ssl.SSLError` among
    them), `TimeoutError`, or `RpcFailed` from a peer that speaks no HTTP/2."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout_s):
        if target.startswith("unix:"):
            _, connection = await loop.create_unix_connection(Connection, target.removeprefix("unix:"))
        else:
            host, _, port = target.rpartition(":")
            host = host.strip("[]")
            transport, connection = await loop.create_connection(
                Connection, host, int(port), ssl=tls, server_hostname=(server_name or host) if tls else None
            )
            if tls is not None and transport.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
                transport.abort()
                raise RpcFailed(StatusCode.UNAVAILABLE, "the peer speaks no HTTP/2 over TLS", sent=False)
        try:
            await connection.greeted
        except BaseException:
            connection.close()
            raise
    return connection
