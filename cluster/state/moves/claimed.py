"""Moves of what lies under a node. `at`: the claim as its writer last knew it.

What returns `Ops` is one of several writes that a node has ready for one claim: each is guarded when its turn comes.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from rota.client.model import History
from rota.client.wire.codec import slice_body

from ...ledger.commits import Write
from ...ledger.ledger import Condition, Delete, Put
from ..keys import Keys
from ..records import Awaiting, Claim, Token, encode, hex_bits, token_of
from ..splitting import piece_name, shrunk
from .ops import Conditions, Ops, freed, put_awaiting, put_scheduled, put_waiting


def mark_started(keys: Keys, who: Conditions, at: Condition, claim: Claim, marked: Claim) -> Write:
    """Before it begins: what may not run twice, was lost once, or has something for itself until now. `marked`: the
    claim from here on."""
    gone = freed(keys, claim) if not marked.unique else ()
    return Write((*who, at), (Put(at.key, encode(marked)), *gone))


def hand_back(
    keys: Keys, who: Conditions, at: Condition, bundle: str, claim: Claim, past: History | None = None
) -> Write:
    """Back to its place, as if it had never been given: no attempt is used up. `past`: what is told of it, if it had
    begun."""
    token = token_of(claim)
    token = token if past is None else replace(token, past=past)
    return Write((*who, at), (Delete(at.key), put_waiting(keys, bundle, token)))


def take_over(
    keys: Keys, who: Conditions, at: Condition, bundle: str, claim: Claim, *, lost: int, due_ms: int = 0,
    past: History = (),
) -> Write:
    """From under a node that is gone, back to its place; or, if it shall wait until `due_ms`, among the scheduled. (In
    a serial queue it waits at its place.) `lost`: how often it was running then; `past`: its attempts so far."""
    token = replace(token_of(claim), orphanings=claim.orphanings + 1, lost=lost, past=past)
    if due_ms and claim.serial:
        token = replace(token, not_before=due_ms)
    elif due_ms:
        return Write((*who, at), (Delete(at.key), put_scheduled(keys, bundle, token, due_ms)))
    return Write((*who, at), (Delete(at.key), put_waiting(keys, bundle, token)))


def record(key: bytes, claim: Claim) -> Ops:
    """Some of its jobs have ended: the claim's bitmap says so."""
    return (Put(key, encode(claim)),)


def remember_first(key: bytes, claim: Claim, step: Put) -> Ops:
    """The first step of its jobs that is remembered: the claim says from here on that there are some."""
    return (Put(key, encode(claim)), step)


def give_back(keys: Keys, key: bytes, bundle: str, claim: Claim, body: bytes, indexes: list[int], size: int) -> Ops:
    """Some of its jobs, which have not begun, go back to their queue in pieces of `size`; to the claim they count as
    done."""
    ops: list[Put | Delete] = [Put(key, encode(claim))]
    for part in (indexes[start : start + size] for start in range(0, len(indexes), size)):
        name = piece_name(bundle, part)
        ops.append(put_waiting(keys, name, shrunk(token_of(claim), len(part))))
        ops.append(Put(keys.body(name), slice_body(body, part)))
    return tuple(ops)


def end(keys: Keys, key: bytes, bundle: str, claim: Claim) -> Ops:
    """All of its jobs have ended."""
    return (Delete(key), Delete(keys.body(bundle)), *freed(keys, claim))


def retry(
    keys: Keys, key: bytes, bundle: str, body: bytes, done: int, again: Sequence[tuple[list[int], Token, int]]
) -> Ops:
    """The jobs that are left are tried again: (indexes, token of the next attempt, due in ms) for each time at which
    some of them are due. If there is one such time only, the bundle stays whole."""
    return _later(keys, key, bundle, body, done, again)


def suspend(
    keys: Keys, key: bytes, bundle: str, body: bytes, done: int, again: Sequence[tuple[list[int], Token, int]]
) -> Ops:
    """The same, where some of those that are left sleep, or wait for other jobs (a token that is `Awaiting`): they have
    given their slots back, and go on later, by what they remember."""
    return _later(keys, key, bundle, body, done, again)


def _later(
    keys: Keys, key: bytes, bundle: str, body: bytes, done: int, again: Sequence[tuple[list[int], Token, int]]
) -> Ops:
    if len(again) == 1:
        ((_, token, due_ms),) = again
        return (Delete(key), _put_later(keys, bundle, replace(token, done=hex_bits(done), late=""), due_ms))
    ops: list[Put | Delete] = [Delete(key)]
    bodies = []
    for indexes, token, due_ms in again:
        name = piece_name(bundle, indexes)
        bodies.append(Put(keys.body(name), slice_body(body, indexes)))
        ops += [_put_later(keys, name, shrunk(token, len(indexes)), due_ms), bodies[-1]]
    if keys.body(bundle) not in [put.key for put in bodies]:
        ops.append(Delete(keys.body(bundle)))
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
