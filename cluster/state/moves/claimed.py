"""Moves of what lies under a node. `at`: the claim as its writer last knew it.

What returns `Ops` is one of several writes that a node has ready for one claim: each is guarded when its turn comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from msgspec.structs import replace

from rota.client.model import History
from rota.client.wire.keyring import UNSIGNED, Seal

from ...ledger.commits import Write
from ...ledger.ledger import Condition, Delete, Put
from ..keys import Keys
from ..records import Awaiting, Claim, Token, encode, header_of, hex_bits, token_of
from ..splitting import in_parts, piece_name, shrunk
from .ops import Conditions, Ops, freed, put_awaiting, put_scheduled, put_waiting
from .remembered import forget_late

KEYLESS = Seal(UNSIGNED, "")
"""For what is not cut."""

Place: TypeAlias = Callable[[str, Token], Put]
"""Where a token goes, by the name of its bundle."""


def mark_started(keys: Keys, who: Conditions, at: Condition, claim: Claim, marked: Claim) -> Write:
    """Before it begins: what may not run twice, was lost once, or has something for itself until now. `marked`: the
    claim from here on."""
    gone = freed(keys, claim) if not marked.unique else ()
    return Write((*who, at), (Put(at.key, encode(marked)), *gone))


def hand_back(
    keys: Keys, who: Conditions, at: Condition, bundle: str, claim: Claim, past: History | None = None,
    body: bytes = b"", seal: Seal = KEYLESS,
) -> Write:
    """Back to its place, as if it had never been given: no attempt is used up. `past`: what is told of it, if it had
    begun. `body`: its own, if some of its jobs have slept (`Claim.parts_ways`), and what cuts it."""
    token = token_of(claim)
    token = token if past is None else replace(token, past=past)
    put = partial(put_waiting, keys)
    return Write((*who, at), (Delete(at.key), *_back(keys, seal, bundle, claim, token, body, put)))


def take_over(
    keys: Keys, who: Conditions, at: Condition, bundle: str, claim: Claim, *, lost: int, due_ms: int = 0,
    past: History = (), body: bytes = b"", seal: Seal = KEYLESS,
) -> Write:
    """From under a node that is gone, back to its place; or, if it shall wait until `due_ms`, among the scheduled. (In
    a serial queue it waits at its place.) `lost`: how often it was running then; `past`: its attempts so far;
    `body` and `seal`: as in `hand_back`."""
    token = replace(token_of(claim), orphanings=claim.orphanings + 1, lost=lost, past=past)
    put: Place = partial(put_waiting, keys)
    if due_ms and claim.serial:
        token = replace(token, not_before=due_ms)
    elif due_ms:
        put = partial(put_scheduled, keys, due_ms=due_ms)
    return Write((*who, at), (Delete(at.key), *_back(keys, seal, bundle, claim, token, body, put)))


def _back(keys: Keys, seal: Seal, bundle: str, claim: Claim, token: Token, body: bytes, put: Place) -> Ops:
    header = header_of(body) if claim.parts_ways else None
    if header is None:
        return (put(bundle, token),)
    left, slept = [index for index in header.indexes if not claim.done_bits >> index & 1], int(claim.slept, 16)
    parts = [
        (indexes, replace(token, expires=expires), put) for indexes, expires in (
            ([index for index in left if slept >> index & 1], 0),
            ([index for index in left if not slept >> index & 1], token.expires),
        ) if indexes
    ]
    if len(parts) == 1:
        return (put(bundle, parts[0][1]),)
    return (*_apart(keys, seal, bundle, body, parts), *forget_late(keys, bundle, token))


def record(key: bytes, claim: Claim) -> Ops:
    """Some of its jobs have ended: the claim's bitmap says so."""
    return (Put(key, encode(claim)),)


def remember_first(key: bytes, claim: Claim, step: Put) -> Ops:
    """The first step of its jobs that is remembered: the claim says from here on that there are some."""
    return (Put(key, encode(claim)), step)


def give_back(
    keys: Keys, seal: Seal, key: bytes, bundle: str, claim: Claim, body: bytes, indexes: list[int], size: int
) -> Ops:
    """Some of its jobs, which have not begun, go back to their queue in pieces of `size` (or larger: `in_parts`); to
    the claim they count as done."""
    ops: list[Put | Delete] = [Put(key, encode(claim))]
    parts = in_parts(indexes, size)
    for part, cut in zip(parts, seal.slices(body, parts), strict=True):
        name = piece_name(bundle, part)
        ops.append(put_waiting(keys, name, shrunk(token_of(claim), part)))
        ops.append(Put(keys.body(name), cut))
    return tuple(ops)


def part_with(
    keys: Keys, seal: Seal, key: bytes, bundle: str, claim: Claim, body: bytes,
    again: Sequence[tuple[list[int], Token, int]],
) -> Ops:
    """Of a wide bundle that goes apart, some parts go before the others (`retry`, `suspend`), each as a piece of its
    own; to the claim their jobs count as done. None of them may have the name that the claim has."""
    return (Put(key, encode(claim)), *_pieces(keys, seal, bundle, body, [
        (indexes, token, partial(_put_later, keys, due_ms=due_ms)) for indexes, token, due_ms in again
    ]))


def end(keys: Keys, key: bytes, bundle: str, claim: Claim) -> Ops:
    """All of its jobs have ended."""
    return (Delete(key), Delete(keys.body(bundle)), *freed(keys, claim))


def retry(
    keys: Keys, seal: Seal, key: bytes, bundle: str, body: bytes, done: int,
    again: Sequence[tuple[list[int], Token, int]],
) -> Ops:
    """The jobs that are left are tried again: (indexes, token of the next attempt, due in ms) for each time at which
    some of them are due. If there is one such time only, the bundle stays whole."""
    return _later(keys, seal, key, bundle, body, done, again)


def suspend(
    keys: Keys, seal: Seal, key: bytes, bundle: str, body: bytes, done: int,
    again: Sequence[tuple[list[int], Token, int]],
) -> Ops:
    """The same, where some of those that are left sleep, or wait for other jobs (a token that is `Awaiting`): they have
    given their slots back, and go on later, by what they remember."""
    return _later(keys, seal, key, bundle, body, done, again)


def _later(
    keys: Keys, seal: Seal, key: bytes, bundle: str, body: bytes, done: int,
    again: Sequence[tuple[list[int], Token, int]],
) -> Ops:
    if len(again) == 1:
        ((_, token, due_ms),) = again
        return (Delete(key), _put_later(keys, bundle, replace(token, done=hex_bits(done), late=""), due_ms))
    parts = [(indexes, token, partial(_put_later, keys, due_ms=due_ms)) for indexes, token, due_ms in again]
    return (Delete(key), *_apart(keys, seal, bundle, body, parts))


def _apart(
    keys: Keys, seal: Seal, bundle: str, body: bytes, parts: Sequence[tuple[list[int], Token, Place]]
) -> Ops:
    """Each of these is a piece of its own, and nothing else is left of the bundle."""
    ops = _pieces(keys, seal, bundle, body, parts)
    return ops if any(op.key == keys.body(bundle) for op in ops) else (*ops, Delete(keys.body(bundle)))


def _pieces(
    keys: Keys, seal: Seal, bundle: str, body: bytes, parts: Sequence[tuple[list[int], Token, Place]]
) -> Ops:
    ops: list[Put | Delete] = []
    cuts = seal.slices(body, [indexes for indexes, _, _ in parts])
    for (indexes, token, put), cut in zip(parts, cuts, strict=True):
        name = piece_name(bundle, indexes)
        ops += [put(name, shrunk(token, indexes)), Put(keys.body(name), cut)]
    return tuple(ops)


def _put_later(keys: Keys, name: str, token: Token, due_ms: int) -> Put:
    return put_awaiting(keys, name, token) if isinstance(token, Awaiting) else put_scheduled(keys, name, token, due_ms)


def retry_in_place(keys: Keys, key: bytes, bundle: str, token: Token, not_before_ms: int) -> Ops:
    """In a serial queue a job is tried again at its place: nothing overtakes it."""
    return (Delete(key), put_waiting(keys, bundle, replace(token, not_before=not_before_ms)))


def sleep_in_place(keys: Keys, key: bytes, bundle: str, token: Token, not_before_ms: int) -> Ops:
    """In a serial queue a job sleeps at its place, and what is behind it waits."""
    return retry_in_place(keys, key, bundle, token, not_before_ms)


def block(keys: Keys, key: bytes, bundle: str, token: Token) -> Ops:
    """In a serial queue what has failed for good stays at its place, and blocks it until a person decides."""
    return (Delete(key), put_waiting(keys, bundle, replace(token, blocked=True)))
