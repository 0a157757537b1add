"""Frames over a unix stream socket: u32 length, u32 CRC-32, MessagePack.

User code shares the runner's end and may write garbage to it: a frame that is not whole is `BadFrame`, and costs the
node nothing but that runner. `BlockingEnd` is for a runner that does one job after another, `LoopEnd` for event
loops: the node's, and that of a runner of `async def` jobs.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from zlib import crc32

import msgspec

from rota.client.model import UNREADABLE

HEADER = struct.Struct(">II")
FRAME_BYTES_MAX = 32 * 1024 * 1024
"""No frame is larger: a bundle's payload is at most 256 KiB, code shipped by value a few MiB."""
READ_BYTES = 256 * 1024

FrameT = TypeVar("FrameT")
_encoder = msgspec.msgpack.Encoder()
_buffer = memoryview(bytearray(READ_BYTES))
"""For all channels of the event loop: what is read is parsed, and copied, before anything else is read."""


class BadFrame(Exception):
    """The bytes on the channel are no frames."""


class ChannelClosed(Exception):
    """The other end is gone."""


def pack(frame: msgspec.Struct) -> bytes:
    data = _encoder.encode(frame)
    if len(data) > FRAME_BYTES_MAX:
        raise ValueError(f"a frame of {len(data):,} bytes; the limit is {FRAME_BYTES_MAX:,}")
    return HEADER.pack(len(data), crc32(data)) + data


class Parser(Generic[FrameT]):
    """Cut a stream of bytes into frames of one union of types."""

    def __init__(self, frames: Any) -> None:
        self._decode: Callable[[bytes], FrameT] = msgspec.msgpack.Decoder(frames).decode
        self._rest = bytearray()
        self._wanted = HEADER.size

    def feed(self, data: bytes, frames: list[FrameT]) -> None:
        """Append the whole frames in what has arrived, also those before a bad one. Raises `BadFrame`."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return                      # in the middle of a large frame: do not look again and again
            data, self._rest = bytes(self._rest), bytearray()
        at, end = 0, len(data)
        while end - at >= HEADER.size:
            size, crc = HEADER.unpack_from(data, at)
            if size > FRAME_BYTES_MAX:
                raise BadFrame(f"a frame of {size:,} bytes is announced")
            if end - at - HEADER.size < size:
                self._wanted = HEADER.size + size
                break
            at += HEADER.size
            payload = data[at : at + size]  # a copy: for small frames cheaper than a view
            if crc32(payload) != crc:
                raise BadFrame("a frame's checksum is wrong")
            try:
                frames.append(self._decode(payload))
            except UNREADABLE as error:
                raise BadFrame(f"a frame cannot be decoded: {error}") from error
            at += size
        else:
            self._wanted = HEADER.size
        if at < end:
            self._rest += data[at:]


class BlockingEnd(Generic[FrameT]):
    """The end of a runner that does one job after another. Any thread may send; one at a time receives."""

    def __init__(self, sock: socket.socket, frames: Any) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._parser: Parser[FrameT] = Parser(frames)
        self._sending = threading.Lock()

    def send(self, frame: msgspec.Struct) -> None:
        """Raises `ChannelClosed`; blocks while the node does not read."""
        data = pack(frame)
        try:
            with self._sending:
                self._sock.sendall(data)    # not os.write: a job may have put a file in the socket's place
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def receive(self) -> list[FrameT]:
        """Wait for at least one frame. Raises `ChannelClosed`, `BadFrame`."""
        while True:
            frames = self._read(0)
            if frames:
                return frames

    def receive_now(self) -> list[FrameT]:
        """The frames that are here already. Raises `ChannelClosed`, `BadFrame`."""
        try:
            return self._read(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []

    def _read(self, flags: int) -> list[FrameT]:
        try:
            data = self._sock.recv(READ_BYTES, flags)
        except BlockingIOError:
            raise
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        if not data:
            raise ChannelClosed("the node's end is closed")
        frames: list[FrameT] = []
        self._parser.feed(data, frames)
        return frames


class LoopEnd(Generic[FrameT]):
    """An end on an event loop. Frames arrive in batches, `lost` is called once: None for the end, or what was wrong.

    Reading rests for as long as `on_frames` says, in seconds, for more is on its way: a runner that ends a job every
    few microseconds then costs the node one wake-up a batch, not one a job. At its end `look` looks for what comes by
    another way, and says how long reading is to go on resting.
    """

    def __init__(
        self,
        sock: socket.socket,
        frames: Any,
        *,
        on_frames: Callable[[list[FrameT]], float],
        on_lost: Callable[[BadFrame | None], None],
        look: Callable[[], float] | None = None,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._fd = sock.fileno()
        self._parser: Parser[FrameT] = Parser(frames)
        self._on_frames = on_frames
        self._on_lost = on_lost
        self._look = look
        self._loop = asyncio.get_running_loop()
        self._unsent = bytearray()
        self._reading = False
        self._timer: asyncio.TimerHandle | None = None
        self.closed = False
        self._resume()

    def send(self, frame: msgspec.Struct) -> None:
        """Send, or keep until the socket takes it. Never blocks; a lost channel swallows it."""
        if self.closed:
            return
        data = pack(frame)
        if self._unsent:
            self._unsent += data
            return
        sent = self._push(data)
        if sent < len(data) and not self.closed:
            self._unsent += data[sent:]
            self._loop.add_writer(self._fd, self._flush)

    def drain(self) -> None:
        """Read what the other end left behind. For a process that has died: all it ever sent is in the socket."""
        while not self.closed:
            if not self._read():
                return

    def close(self) -> None:
        """Forget the socket; `on_lost` is not called."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._reading:
            self._loop.remove_reader(self._fd)
        if self._unsent:
            self._loop.remove_writer(self._fd)
        self._sock.close()

    def _push(self, data: bytes | bytearray) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self._lose(None)
            return 0

    def _flush(self) -> None:
        sent = self._push(self._unsent)
        if self.closed:
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._fd)

    def _readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        """Read once; True if there was something."""
        try:
            count = self._sock.recv_into(_buffer)
        except BlockingIOError:
            return False
        except OSError:
            count = 0
        if not count:
            self._lose(None)
            return False
        frames: list[FrameT] = []
        bad: BadFrame | None = None
        try:
            self._parser.feed(bytes(_buffer[:count]), frames)
        except BadFrame as error:
            bad = error
        rest_s = self._on_frames(frames) if frames else 0.0
        if bad is not None:
            self._lose(bad)
            return False
        if rest_s and self._reading and not self.closed:
            self._reading = False
            self._loop.remove_reader(self._fd)
            self._timer = self._loop.call_later(rest_s, self._resume)
        return True

    def _resume(self) -> None:
        rest_s = self._look() if self._timer is not None and self._look is not None else 0.0
        self._timer = None
        if self.closed:
            return
        if rest_s:
            self._timer = self._loop.call_later(rest_s, self._resume)
        elif not self._reading:
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)

    def _lose(self, bad: BadFrame | None) -> None:
        if not self.closed:
            self.close()
            self._on_lost(bad)
