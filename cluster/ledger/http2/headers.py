"""Header blocks (HPACK, RFC 7541) of gRPC calls.

Ours hold indexes of the static table and literals that are not to be remembered, so a block depends on nothing that was
sent before it: the blocks of all calls of a kind are the same bytes. The server is told to remember nothing either.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote

import hpack
from grpc import StatusCode

from .frames import COMPRESSION_ERROR, PROTOCOL_ERROR, PeerError

USER_AGENT = b"rota"
LIST_BYTES_MAX = 65_536
BLOCKS_KEPT = 256

_POST, _HTTP, _HTTPS = b"\x83", b"\x86", b"\x87"                # of the static table, whole
_AUTHORITY, _PATH, _CONTENT_TYPE, _USER_AGENT = b"\x01", b"\x04", b"\x0f\x10", b"\x0f\x2b"    # its names, not indexed

_CODES = {code.value[0]: code for code in StatusCode}
_OF_HTTP = {
    "400": StatusCode.INTERNAL, "401": StatusCode.UNAUTHENTICATED, "403": StatusCode.PERMISSION_DENIED,
    "404": StatusCode.UNIMPLEMENTED, "429": StatusCode.UNAVAILABLE, "502": StatusCode.UNAVAILABLE,
    "503": StatusCode.UNAVAILABLE, "504": StatusCode.UNAVAILABLE,
}
"""gRPC's table for answers that did not come from gRPC ("HTTP to gRPC Status Code Mapping")."""


def request_block(authority: str, path: str, *, tls: bool, metadata: Iterable[tuple[str, str]] = ()) -> bytes:
    """What opens a call, without its time limit."""
    return b"".join((
        _POST, _HTTPS if tls else _HTTP, _PATH, _text(path.encode()), _AUTHORITY, _text(authority.encode()),
        _literal(b"te", b"trailers"), _CONTENT_TYPE, _text(b"application/grpc"), _USER_AGENT, _text(USER_AGENT),
        *(_literal(name.encode(), value.encode()) for name, value in metadata),
    ))


def time_limit(timeout_s: float) -> bytes:
    """Goes behind a `request_block`: the server gives up, too."""
    return _literal(b"grpc-timeout", b"%dm" % min(max(1, round(timeout_s * 1000)), 99_999_999))


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + _text(name) + _text(value)


def _text(text: bytes) -> bytes:
    """A string without Huffman's code; its length is an integer of 7 bits and more (section 5.1)."""
    size = len(text)
    if size < 127:
        return bytes((size,)) + text
    size -= 127
    out = bytearray((127,))
    while size >= 128:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out) + text


class HeaderReader:
    """Of one connection. Blocks that came before are known by their bytes."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(LIST_BYTES_MAX)
        self._decoder.max_allowed_table_size = 0
        self._known: dict[bytes, dict[str, str]] = {}

    def read(self, block: bytes) -> dict[str, str]:
        """Raises `PeerError`."""
        fields = self._known.get(block)
        if fields is not None:
            return fields
        try:
            fields = {_str(name): _str(value) for name, value in self._decoder.decode(block)}
        except hpack.HPACKError as error:
            raise PeerError(COMPRESSION_ERROR, f"headers that cannot be read: {error}") from None
        except UnicodeDecodeError:
            raise PeerError(PROTOCOL_ERROR, "headers that are no text") from None
        if len(self._known) < BLOCKS_KEPT and len(block) < BLOCKS_KEPT and block[:1] != b"\x20":   # (sets the table)
            self._known[block] = fields
        return fields


def _str(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode()


def status_in(fields: dict[str, str]) -> tuple[StatusCode, str]:
    """How a call ended, by its last headers."""
    status = fields.get("grpc-status")
    if status is None:
        http = fields.get(":status", "200")
        return _OF_HTTP.get(http, StatusCode.UNKNOWN), f"no answer of gRPC (HTTP status {http})"
    code = _CODES.get(int(status)) if status.isascii() and status.isdecimal() else None
    return code or StatusCode.UNKNOWN, unquote(fields.get("grpc-message", ""))
