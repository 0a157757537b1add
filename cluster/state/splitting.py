"""The pieces of a bundle: their names, tokens and bodies. Pure.

Each piece gets its own token at its own place (so that order is kept) and its own slice of the body: from then on a
piece is a bundle like any other, and nothing has to count how many of its siblings are still there.
"""

from __future__ import annotations

import msgspec

from rota.client.model import JOBS_PER_BUNDLE_MAX, Header
from rota.client.wire.codec import decode_header, slice_body

from .keys import whole
from .records import Token, bits, hex_bits


def pieces(bundle: str, token: Token, body: bytes, size: int) -> list[tuple[str, Token, bytes]]:
    """(name, token, body) for what still has to run, in pieces of up to `size` jobs."""
    header, _ = decode_header(body)
    done = token.done_bits
    todo = [index for index in header.indexes if not done >> index & 1]
    return [
        (piece_name(bundle, part), shrunk(token, part), slice_body(body, part))
        for part in (todo[start : start + size] for start in range(0, len(todo), size))
    ]


def piece_name(bundle: str, indexes: list[int]) -> str:
    """Two digits, so that the order of names is that of jobs."""
    return f"{whole(bundle)}.{min(indexes):02d}"


def shrunk(token: Token, indexes: list[int]) -> Token:
    """The token of a piece. It says which jobs are in it, so that none is forgotten when its body is gone."""
    part = hex_bits(bits(indexes)) if len(indexes) > 1 else ""
    return msgspec.structs.replace(token, count=len(indexes), part=part, done="", late="")


def first_of(bundle: str, token: Token, header: Header | None = None) -> int:
    """The job of a token that is tried first."""
    return next(iter(jobs_in(bundle, token, header) or (int(bundle.partition(".")[2] or 0),)))


def jobs_in(bundle: str, token: Token, header: Header | None = None) -> list[int] | None:
    """Which jobs of a token have not ended: as its body says, or else as it says itself. None: nobody can tell (the
    release before left it to the body of a piece)."""
    if header is not None:
        indexes = header.indexes
    elif bundle == whole(bundle):
        indexes = list(range(token.count))
    elif token.count == 1:
        indexes = [int(bundle.rpartition(".")[2])]
    elif token.part:
        indexes = [index for index in range(JOBS_PER_BUNDLE_MAX) if int(token.part, 16) >> index & 1]
    else:
        return None
    return [index for index in indexes if not token.done_bits >> index & 1]
