"""Frames of HTTP/2 (RFC 9113, sections 4 and 6): bytes in, checked frames out.

`FrameReader` is strict: whatever it lets through has the size and the stream that its kind asks for, padding and
priorities are gone, and a header block is whole. All else is a `PeerError`, which ends the connection.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0x0, 0x1, 0x2, 0x3
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0x6, 0x7, 0x8, 0x9, 0xB

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 3, 4, 5
MAX_HEADER_LIST_SIZE = 6

HEAD_BYTES = 9
FRAME_BYTES_MAX = 16_384
"""What we take: the smallest that a peer may be held to, and what etcd sends at most."""
BLOCK_BYTES_MAX = 65_536
"""Of one header block, in however many frames."""
WINDOW_MAX = 2**31 - 1
DEFAULT_WINDOW = 65_535

_HEAD = struct.Struct(">BHBBI")             # length (24 bits), kind, flags, stream
_U32 = struct.Struct(">I")
_SETTING = struct.Struct(">HI")
_GOAWAY = struct.Struct(">II")

_SIZES = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_OF_STREAMS = frozenset((DATA, HEADERS, PRIORITY, RST_STREAM, CONTINUATION))
_OF_CONNECTIONS = frozenset((SETTINGS, PING, GOAWAY))


class PeerError(Exception):
    """The peer broke the protocol: nothing on this connection can be trusted any more."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code, self.text = code, text

    def __str__(self) -> str:
        return self.text


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes
    size: int
    """Of the payload on the wire, padding included: what flow control counts."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frame_head(kind, flags, stream, len(payload)) + payload


def frame_head(kind: int, flags: int, stream: int, size: int) -> bytes:
    """What stands before a payload of that size."""
    return _HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream)


def u32(value: int) -> bytes:
    return _U32.pack(value)


def to_u32(payload: bytes) -> int:
    value: int = _U32.unpack_from(payload)[0]
    return value


def settings_frame(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in pairs))


def settings_in(payload: bytes) -> list[tuple[int, int]]:
    return list(_SETTING.iter_unpack(payload))


def goaway_frame(code: int) -> bytes:
    return frame(GOAWAY, 0, 0, _GOAWAY.pack(0, code))


def goaway_in(payload: bytes) -> tuple[int, int, str]:
    """The last stream that was taken, the error code, and what the peer says about it."""
    last, code = _GOAWAY.unpack_from(payload)
    return last & WINDOW_MAX, code, payload[_GOAWAY.size:].decode("ascii", "replace")


class FrameReader:
    """Of one connection. `feed` may be given any pieces of the stream of bytes."""

    def __init__(self) -> None:
        self._rest = b""
        self._block: Frame | None = None        # a header block that goes on
        self._greeted = False

    def feed(self, data: bytes) -> list[Frame]:
        """All frames that are whole now. Raises `PeerError`; what came before the fault is lost with the connection."""
        if self._rest:
            data = self._rest + data
        found: list[Frame] = []
        at, end = 0, len(data)
        while end - at >= HEAD_BYTES:
            high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
            size = high << 16 | low
            if not self._greeted and (kind != SETTINGS or flags & ACK):
                raise PeerError(PROTOCOL_ERROR, "it does not begin with its settings: this is no HTTP/2")
            self._greeted = True
            if size > FRAME_BYTES_MAX:
                raise PeerError(FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            start = at + HEAD_BYTES
            if start + size > end:
                break
            at = start + size
            whole = self._checked(kind, flags, stream & WINDOW_MAX, data[start:at])
            if whole is not None:
                found.append(whole)
        self._rest = data[at:]
        return found

    def _checked(self, kind: int, flags: int, stream: int, payload: bytes) -> Frame | None:
        size = len(payload)
        if self._block is not None or kind == CONTINUATION:
            return self._continued(kind, flags, stream, payload)
        if kind == DATA:
            if not stream:
                raise PeerError(PROTOCOL_ERROR, "data of no stream")
            return Frame(DATA, flags, stream, _unpadded(payload) if flags & PADDED else payload, size)
        if kind == HEADERS:
            return self._headers(flags, stream, payload)
        _check(kind, flags, stream, size)
        return Frame(kind, flags, stream, payload, size) if kind <= WINDOW_UPDATE and kind != PRIORITY else None

    def _headers(self, flags: int, stream: int, payload: bytes) -> Frame | None:
        size = len(payload)
        if not stream:
            raise PeerError(PROTOCOL_ERROR, "headers of no stream")
        if flags & PADDED:
            payload = _unpadded(payload)
        if flags & HAS_PRIORITY:
            if len(payload) < 5:
                raise PeerError(FRAME_SIZE_ERROR, "headers without room for their priority")
            payload = payload[5:]
        block = Frame(HEADERS, flags, stream, payload, size)
        if flags & END_HEADERS:
            return block
        self._block = block
        return None

    def _continued(self, kind: int, flags: int, stream: int, payload: bytes) -> Frame | None:
        block = self._block
        if block is None or kind != CONTINUATION or stream != block.stream:
            raise PeerError(PROTOCOL_ERROR, "a header block that is broken off, or goes on from nowhere")
        if len(block.payload) + len(payload) > BLOCK_BYTES_MAX or not (payload or flags & END_HEADERS):
            raise PeerError(ENHANCE_YOUR_CALM, "a header block without end")
        block = block._replace(payload=block.payload + payload, size=block.size + len(payload))
        if flags & END_HEADERS:
            self._block = None
            return block
        self._block = block
        return None


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise PeerError(PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]


def _check(kind: int, flags: int, stream: int, size: int) -> None:
    if kind == PUSH_PROMISE:
        raise PeerError(PROTOCOL_ERROR, "a push, which we have forbidden")
    if size != _SIZES.get(kind, size):
        raise PeerError(FRAME_SIZE_ERROR, f"a frame of kind {kind} with {size} bytes")
    if kind == SETTINGS and (size % 6 or (flags & ACK and size)):
        raise PeerError(FRAME_SIZE_ERROR, f"settings of {size} bytes")
    if kind == GOAWAY and size < _GOAWAY.size:
        raise PeerError(FRAME_SIZE_ERROR, f"a farewell of {size} bytes")
    if (kind in _OF_STREAMS and not stream) or (kind in _OF_CONNECTIONS and stream):
        raise PeerError(PROTOCOL_ERROR, f"a frame of kind {kind} on stream {stream}")
