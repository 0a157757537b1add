"""The pieces of a bundle: their names, tokens and bodies. Pure.

Each piece gets its own token at its own place (so that order is kept) and its own slice of the body: from then on a
piece is a bundle like any other, and nothing has to count how many of its siblings are still there.

A split makes at most `PIECES_MAX` of them (a transaction has 128 operations). Where smaller ones are wanted, these are
split again: they are bundles like any other.
"""

from __future__ import annotations

import msgspec

from rota.client.ids import index_at, ordinal
from rota.client.model import Header
from rota.client.wire.codec import decode_header
from rota.client.wire.keyring import Seal

from .keys import whole
from .records import Token, bits, hex_bits

PIECES_MAX = 60
"""Of one split: a token and a body each."""

BYTES_PER_WRITE = 768 * 1024
"""Of bodies. What was cut without its key is larger than what it was cut from (`codec.slices`)."""


def pieces(
    seal: Seal, bundle: str, token: Token, body: bytes, size: int, most: int = PIECES_MAX
) -> list[tuple[str, Token, bytes]]:
    """(name, token, body) for what still has to run, in pieces of up to `size` jobs; of more, where that would make
    more than `most` pieces, or more bytes than go into a write."""
    header, _ = decode_header(body)
    left = [index for index in header.indexes if not token.done_bits >> index & 1]
    parts = in_parts(left, size, most)
    cuts = seal.slices(body, parts)
    if fitting(cuts) < len(cuts):
        parts = in_parts(left, size, fitting(cuts))
        cuts = seal.slices(body, parts)
    return [(piece_name(bundle, part), shrunk(token, part), cut) for part, cut in zip(parts, cuts, strict=True)]


def fitting(cuts: list[bytes]) -> int:
    """How many of these go into one write. (Without their key, two at least.)"""
    size = sum(map(len, cuts))
    return len(cuts) if size <= BYTES_PER_WRITE else max(1, BYTES_PER_WRITE * len(cuts) // size)


def in_parts(indexes: list[int], size: int, most: int = PIECES_MAX) -> list[list[int]]:
    """Of up to `size`, or as small as `most` of them can be."""
    size = max(size, -(-len(indexes) // most))
    return [indexes[start : start + size] for start in range(0, len(indexes), size)]


def piece_name(bundle: str, indexes: list[int]) -> str:
    """The order of names is that of jobs."""
    return f"{whole(bundle)}.{ordinal(min(indexes))}"


def shrunk(token: Token, indexes: list[int]) -> Token:
    """The token of a piece. It says which jobs are in it, so that none is forgotten when its body is gone."""
    part = hex_bits(bits(indexes)) if len(indexes) > 1 else ""
    return msgspec.structs.replace(token, count=len(indexes), part=part, done="", late="")


def first_of(bundle: str, token: Token, header: Header | None = None) -> int:
    """The job of a token that is tried first."""
    return next(iter(jobs_in(bundle, token, header) or (index_at(bundle.partition(".")[2]),)))


def jobs_in(bundle: str, token: Token, header: Header | None = None) -> list[int] | None:
    """Which jobs of a token have not ended: as its body says, or else as it says itself. None: nobody can tell (the
    release before left it to the body of a piece)."""
    if header is not None:
        indexes = header.indexes
    elif bundle == whole(bundle):
        indexes = list(range(token.count))
    elif token.count == 1:
        indexes = [index_at(bundle.rpartition(".")[2])]
    elif token.part:
        part = int(token.part, 16)
        indexes = [index for index in range(part.bit_length()) if part >> index & 1]
    else:
        return None
    return [index for index in indexes if not token.done_bits >> index & 1]
