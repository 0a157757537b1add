"""What may be sent now, and what has to wait for the peer's windows (RFC 9113, section 5.2)."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from .frames import (
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_BYTES_MAX,
    HEADERS,
    PROTOCOL_ERROR,
    WINDOW_MAX,
    PeerError,
    frame,
    frame_head,
)

_PREFIX = struct.Struct(">BI")              # gRPC's, before each message: compressed or not, and its length
PREFIX_BYTES = _PREFIX.size


class Sending(Protocol):
    """A call, as far as its requests go."""

    stream: int
    window: int
    """How much the peer lets this stream send."""
    over: bool


class Sender:
    """Of one connection. A message that fits the windows leaves with one write; others wait in line, by turns."""

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        self._window = DEFAULT_WINDOW
        self._frame_max = FRAME_BYTES_MAX
        self._line: deque[tuple[Sending, memoryview, bool]] = deque()
        self._writable = True
        self.initial_window = DEFAULT_WINDOW

    def open(self, call: Sending, block: bytes, body: bytes | None) -> None:
        """Open a call; with a `body` that is all of its request, without one it is a stream."""
        head = frame(HEADERS, END_HEADERS, call.stream, block)
        if body is None:
            self._transport.write(head)
            return
        size = len(body) + PREFIX_BYTES
        if size <= self._window and size <= self._frame_max and size <= call.window and not self._line:
            self._window -= size
            call.window -= size
            self._transport.write(
                head + frame(DATA, END_STREAM, call.stream, _PREFIX.pack(0, len(body)) + body)
            )
            return
        self.message(call, body, last=True, head=head)

    def message(self, call: Sending, body: bytes, *, last: bool, head: bytes = b"") -> None:
        """`head`: what goes before it at once, whatever its own turn."""
        self._line.append((call, memoryview(_PREFIX.pack(0, len(body)) + body), last))
        self._send(head)

    def widened(self, call: Sending | None, step: int) -> None:
        """The peer takes more, of one call or (None) of the connection. Raises `PeerError`."""
        if not step:
            raise PeerError(PROTOCOL_ERROR, "a window that is widened by nothing")
        if call is None:
            self._window += step
        else:
            call.window += step
        if max(self._window, call.window if call is not None else 0) > WINDOW_MAX:
            raise PeerError(FLOW_CONTROL_ERROR, "a window that is too wide")
        self._send()

    def resize(self, initial_window: int, calls: Iterable[Sending]) -> None:
        """The peer has another idea of what a new stream may send; the open ones follow it. Raises `PeerError`."""
        if initial_window > WINDOW_MAX:
            raise PeerError(FLOW_CONTROL_ERROR, "a window that is too wide")
        step, self.initial_window = initial_window - self.initial_window, initial_window
        for call in calls:
            call.window += step
        self._send()

    def frame_max(self, size: int) -> None:
        """Raises `PeerError`."""
        if not FRAME_BYTES_MAX <= size < 1 << 24:
            raise PeerError(PROTOCOL_ERROR, f"frames of at most {size} bytes")
        self._frame_max = size

    def pause(self) -> None:
        self._writable = False

    def resume(self) -> None:
        self._writable = True
        self._send()

    def _send(self, head: bytes = b"") -> None:
        """Everybody in the line sends what its own window lets through, as long as the connection's lasts: copied once,
        by the join."""
        held: deque[tuple[Sending, memoryview, bool]] = deque()
        stuck: set[int] = set()         # a stream's messages keep their order
        out: list[bytes | memoryview] = [head] if head else []
        while self._line and self._window > 0 and self._writable:
            call, left, last = self._line.popleft()
            if call.over:
                continue
            if call.stream not in stuck:
                left = self._fill(out, call, left, last)
            if left:
                stuck.add(call.stream)
                held.append((call, left, last))
        held.extend(self._line)
        self._line = held
        if out:
            self._transport.write(b"".join(out))

    def _fill(self, out: list[bytes | memoryview], call: Sending, left: memoryview, last: bool) -> memoryview:
        while left and (size := min(len(left), call.window, self._window, self._frame_max)) > 0:
            ends = last and size == len(left)
            out.append(frame_head(DATA, END_STREAM if ends else 0, call.stream, size))
            out.append(left[:size])
            left = left[size:]
            call.window -= size
            self._window -= size
        return left
