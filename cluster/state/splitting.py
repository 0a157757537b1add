"""The pieces of a bundle: their names, tokens and bodies. Pure.

Each piece gets its own token at its own place (so that order is kept) and its own slice of the body: from then on a
piece is a bundle like any other, and nothing has to count how many of its siblings are still there.
"""

from __future__ import annotations

import msgspec

from rota.client.wire.codec import decode_header, slice_body

from .keys import whole
from .records import Token


def pieces(bundle: str, token: Token, body: bytes, size: int) -> list[tuple[str, Token, bytes]]:
    """(name, token, body) for what still has to run, in pieces of up to `size` jobs."""
    header, _ = decode_header(body)
    done = token.done_bits
    todo = [index for index in header.indexes if not done >> index & 1]
    return [
        (piece_name(bundle, part), shrunk(token, len(part)), slice_body(body, part))
        for part in (todo[start : start + size] for start in range(0, len(todo), size))
    ]


def piece_name(bundle: str, indexes: list[int]) -> str:
    """Two digits, so that the order of names is that of jobs."""
    return f"{whole(bundle)}.{min(indexes):02d}"


def shrunk(token: Token, count: int, **changes: object) -> Token:
    return msgspec.structs.replace(token, count=count, done="", late="", **changes)
