"""Moves into the failed set, and out of it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ...ledger.commits import Write, created
from ...ledger.ledger import Condition, Delete, Put
from ..keys import Keys, record_id
from ..records import FailedRecord, Failure, Token, encode
from ..uniques import Hold
from ..words import UNSIGNED_WORDS, Words
from .ops import Conditions, Ops, freed, moved_tail, put_held, put_waiting
from .remembered import forget_late, forget_steps


def fail(
    keys: Keys, bundle: str, index: int, token: Token, *, body: bytes, error: str, traceback: str = "", node: str = "",
    at_s: float, reason: str = "error", words: Words = UNSIGNED_WORDS,
) -> Ops:
    """One job has failed for good: a record that shows it, and what it takes to look at it and to run it again: its
    `body`, traceback and token. To be written together with what takes it from where it was. `words` sign what is
    said: without, it is shown as what anybody may have written."""
    id_ = record_id(bundle, index)
    shown = words.failed(FailedRecord(id_, token.task, token.queue, error, token.attempt, node, at_s, reason))
    kept = words.failure(id_, Failure(body, traceback, encode(token)))
    return (
        Put(keys.failed_job(token.queue, bundle, index), encode(shown)),
        Put(keys.failure(bundle, index), msgspec.msgpack.encode(kept)),
    )


def set_aside(
    keys: Keys, who: Conditions, at: Condition, bundle: str, token: Token, failures: Ops, notices: Iterable[Put] = ()
) -> Write:
    """All jobs of a bundle that must not be run, or not again. `failures`: of each (`fail`); `notices`: who waits."""
    ops = (*freed(keys, token), *forget_late(keys, bundle, token), *failures, *notices)
    return Write((*who, at), (Delete(at.key), Delete(keys.body(bundle)), *ops))


def set_some_aside(
    keys: Keys, who: Conditions, at: Condition, bundle: str, left: bytes, body: bytes, failures: Ops,
    notices: Iterable[Put] = (),
) -> Write:
    """Some jobs of a wide bundle; the others follow. `left`: what lies there of them until then, `body` likewise where
    another one belongs to that (else b"")."""
    shorter = (Put(keys.body(bundle), body),) if body else ()
    return Write((*who, at), (Put(at.key, left), *shorter, *failures, *notices))


def skip_head(keys: Keys, who: Conditions, at: Condition, bundle: str, token: Token, failure: Ops) -> Write:
    """The head of a serial queue, which has failed, makes way for the next."""
    return Write((*who, at), (Delete(at.key), Delete(keys.body(bundle)), *freed(keys, token), *failure))


def revive(
    keys: Keys, who: Conditions, at: Condition, failure_key: bytes, name: str, token: Token, body: bytes,
    hold: Hold | None = None, tail: Condition | None = None,
) -> Write:
    """Run a failed job again, in a bundle of its own. Not while jobs that were in one piece with it still lie under
    that name; nor, if it wants something for itself (`hold`), while another job has that. `tail`: as in `enqueue`."""
    body_key, put = keys.body(name), put_waiting(keys, name, token)
    held = () if hold is None else (put_held(keys, hold.at.key, name, put, token.at),)
    guard, moved = moved_tail(tail, token.order)
    return Write(
        (*who, at, created(body_key, 0), *(() if hold is None else hold.conditions), *guard),
        (Delete(at.key), Delete(failure_key), Put(body_key, body), put, *held, *moved),
    )


def delete(keys: Keys, who: Conditions, at: Condition, bundle: str, index: int) -> Write:
    """Forget a failed job, and what it remembered."""
    gone = forget_steps(keys, bundle, [index])
    return Write((*who, at), (Delete(at.key), Delete(keys.failure(bundle, index)), *gone))
