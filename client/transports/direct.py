"""A WebSocket to one node for blocking calls of one thread at a time: a request, and its answer.

Strict and small: a frame is one unfragmented binary message, nothing is compressed, redirects are not followed.
Whatever else comes is `Lost`, and the caller asks again over its other link.
"""

from __future__ import annotations

import base64
import hashlib
import os
import select
import socket
import ssl
import struct
from collections.abc import Mapping
from itertools import count
from typing import NamedTuple
from urllib.parse import urlsplit

from ..errors import RotaError
from ..model import UNREADABLE
from ..wire import frames as wire

HEAD_BYTES_MAX = 16 * 1024
READ_BYTES = 64 * 1024
CONTROL_BYTES_MAX = 125
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"     # RFC 6455, 1.3

BINARY, PING, PONG = 0x2, 0x9, 0xA
FINAL, RESERVED, MASKED, LENGTH = 0x80, 0x70, 0x80, 0x7F


class Lost(RotaError):
    """The socket is of no more use: what was asked may have been carried out."""


class Address(NamedTuple):
    """Where a node is, and how to speak to it: `tls` for https."""

    url: str
    headers: Mapping[str, str]
    tls: ssl.SSLContext | None


class DirectLink:
    """Made by `open`; to be closed once it has raised anything."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()
        self._corr = count(1)
        self._readable = select.poll()
        self._readable.register(sock.fileno(), select.POLLIN)

    @classmethod
    def open(cls, address: Address, cluster: str, *, connect_s: float, answer_s: float) -> DirectLink:
        """Raises `Lost` or `OSError` where no node of that cluster answers."""
        parts = urlsplit(address.url)
        sock = socket.create_connection((parts.hostname or "", parts.port or _PORTS[parts.scheme]), connect_s)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if parts.scheme == "https":
                context = address.tls or ssl.create_default_context()
                sock = context.wrap_socket(sock, server_hostname=parts.hostname)
            link = cls(sock)
            link._shake_hands(parts.netloc, parts.path + wire.PATH, address.headers)
            hello = link._frame()
            if not isinstance(hello, wire.Hello) or (hello.version, hello.cluster) != (wire.PROTOCOL, cluster):
                raise Lost(f"{address.url} is no node of {cluster!r} that speaks protocol {wire.PROTOCOL}")
            sock.settimeout(answer_s)
        except BaseException:
            sock.close()
            raise
        return link

    def has_news(self) -> bool:
        """Whether something came that was not asked for: its end, most likely."""
        return bool(self._buffer or self._readable.poll(0))

    def ask(self, request: wire.EnqueueRequest) -> wire.EnqueueReply | wire.ErrorFrame:
        """Send a request (setting its `corr`) and return its answer. Raises `Lost` or `OSError`."""
        request.corr = next(self._corr)
        self._send(BINARY, wire.encode(request))
        answer = self._frame()
        if not isinstance(answer, wire.EnqueueReply | wire.ErrorFrame) or answer.corr != request.corr:
            raise Lost(f"the answer to an enqueue was a {type(answer).__name__}")
        return answer

    def close(self) -> None:
        self._socket.close()

    def _shake_hands(self, host: str, path: str, headers: Mapping[str, str]) -> None:
        key = base64.b64encode(os.urandom(16))
        lines = [
            f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
            "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key.decode()}",
            *(f"{name}: {value}" for name, value in headers.items()), "", "",
        ]
        self._socket.sendall("\r\n".join(lines).encode("latin-1"))
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise Lost("the head of its answer does not end")
            self._read()
        head = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        said = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in head[1:])}
        proof = base64.b64encode(hashlib.sha1(key + MAGIC, usedforsecurity=False).digest())
        if head[0].split(b" ")[1:2] != [b"101"] or said.get(b"sec-websocket-accept") != proof:
            raise Lost(f"no WebSocket: {head[0]!r:.100}")
        if b"sec-websocket-extensions" in said:
            raise Lost("it takes an extension that was not offered")

    def _send(self, kind: int, data: bytes) -> None:
        size = len(data)
        if size <= CONTROL_BYTES_MAX:
            head = struct.pack("!BB", FINAL | kind, MASKED | size)
        elif size < 1 << 16:
            head = struct.pack("!BBH", FINAL | kind, MASKED | 126, size)
        else:
            head = struct.pack("!BBQ", FINAL | kind, MASKED | 127, size)
        mask = os.urandom(4)
        stream = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
        masked = (int.from_bytes(data, "little") ^ stream).to_bytes(size, "little")
        self._socket.sendall(b"".join((head, mask, masked)))

    def _frame(self) -> wire.FromNode:
        """The next frame of the node. Raises `Lost` for what is none."""
        while True:
            first, second = self._take(2)
            if first & RESERVED or not first & FINAL or second & MASKED:
                raise Lost("a WebSocket frame that was not agreed on")
            kind, size = first & 0x0F, second & LENGTH
            if size == 126:
                size = int.from_bytes(self._take(2), "big")
            elif size == 127:
                size = int.from_bytes(self._take(8), "big")
            if size > (wire.FRAME_BYTES_MAX if kind == BINARY else CONTROL_BYTES_MAX):
                raise Lost(f"a WebSocket frame of {size:,} bytes")
            data = self._take(size)
            if kind == BINARY:
                try:
                    found: wire.FromNode = wire.decode_from_node(data)
                except UNREADABLE as error:
                    raise Lost(f"a frame that cannot be read: {error}") from None
                return found
            if kind == PING:
                self._send(PONG, data)
            elif kind != PONG:
                raise Lost("the node has closed it")

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._read()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _read(self) -> None:
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise Lost("the node has closed it")
        self._buffer += data


_PORTS = {"http": 80, "https": 443}
