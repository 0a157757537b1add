"""Moves of what waits: in its queue, or among the scheduled. `at`: the token as it was seen there."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace as struct_replace

from rota.client.wire.keyring import Seal

from ...ledger.commits import Write
from ...ledger.ledger import OPS_MAX, Condition, Delete, Put, Record
from ..keys import Keys
from ..records import Token, bits, claim_of, encode, hex_bits
from ..splitting import PIECES_MAX, pieces
from .ops import Conditions, freed, moved_tail, put_held, put_waiting
from .remembered import forget_late


def claim(
    keys: Keys, who: Conditions, at: Condition, bundle: str, token: Token, node: str, *, fence: int, serial: bool
) -> Write:
    """Give a bundle to a node. `fence`: the create revision of the master's election key."""
    made = claim_of(token, fence, serial=serial)
    return Write((*who, at), (Delete(at.key), Put(keys.claim(node, bundle), encode(made))))


def split(
    keys: Keys, seal: Seal, who: Conditions, at: Condition, bundle: str, token: Token, body: Record, size: int
) -> Write:
    """Replace token and body by those of its pieces, of up to `size` jobs each, at the same place in the queue; of more
    jobs, where there would be too many pieces for a transaction: these are split again."""
    late = forget_late(keys, bundle, token)
    puts: dict[bytes, bytes] = {}
    most = min(PIECES_MAX, (OPS_MAX - 3 - len(late)) // 2)      # one is left for what says that jobs wait
    for name, piece, piece_body in pieces(seal, bundle, token, body.value, size, most):
        puts[keys.job(piece.queue, piece.priority, piece.order, name)] = encode(piece)
        puts[keys.body(name)] = piece_body
    deletes = [Delete(gone) for gone in (at.key, body.key) if gone not in puts]
    return Write((*who, at), (*deletes, *late, *(Put(name, value) for name, value in puts.items())))


def become_due(
    keys: Keys, who: Conditions, at: Condition, bundle: str, token: Token, order: int, tail: Condition | None = None
) -> Write:
    """Into its queue, with a fresh order: it stands behind those that came before it was due. `tail`: as in
    `enqueue`."""
    put = put_waiting(keys, bundle, struct_replace(token, order=order))
    held = (put_held(keys, keys.unique(token.task, token.unique), bundle, put, token.at),) if token.unique else ()
    conditions, moved = moved_tail(tail, order)
    return Write((*who, at, *conditions), (Delete(at.key), put, *held, *moved))


def cancel(
    keys: Keys, who: Conditions, at: Condition, bundle: str, token: Token, notices: Iterable[Put | Delete] = ()
) -> Write:
    """All of its jobs. `notices`: for who waits for them, less what they remembered."""
    late = forget_late(keys, bundle, token)
    return Write((*who, at), (Delete(at.key), Delete(keys.body(bundle)), *freed(keys, token), *late, *notices))


def expire(
    keys: Keys, who: Conditions, at: Condition, bundle: str, token: Token, notices: Iterable[Put | Delete] = ()
) -> Write:
    """All of its jobs: it is too late for them to begin. `notices`: for who waits for them."""
    return cancel(keys, who, at, bundle, token, notices)


def replace(keys: Keys, at: Condition, bundle: str, by: Write, notices: Iterable[Put | Delete] = ()) -> Write:
    """Another job takes its place, and the key that it had for itself. `by`: what enqueues that one."""
    return Write((*by.conditions, at), (Delete(at.key), Delete(keys.body(bundle)), *by.ops, *notices))


def cancel_some(
    who: Conditions, at: Condition, token: Token, indexes: list[int], notices: Iterable[Put | Delete] = ()
) -> Write:
    """Some of its jobs: they count as done."""
    left = struct_replace(token, done=hex_bits(token.done_bits | bits(indexes)))
    return Write((*who, at), (Put(at.key, encode(left)), *notices))


def retry_head(who: Conditions, at: Condition, token: Token) -> Write:
    """The head of a serial queue, which has failed or waits to be tried again: from its first attempt, now. (It does
    not expire any more, like what is run again from the failed set: a person wants it, however late.)"""
    again = struct_replace(token, blocked=False, not_before=0, attempt=1, expires=0)
    return Write((*who, at), (Put(at.key, encode(again)),))
