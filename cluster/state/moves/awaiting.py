"""Moves of what waits for other jobs. `at`: the token as it was seen there."""

from __future__ import annotations

import msgspec

from rota.client.model import ResultEntry, Results
from rota.client.wire.codec import encode_results
from rota.client.wire.keyring import Seal

from ...ledger.commits import Write, created
from ...ledger.ledger import Condition, Delete, Put, Target, prefix_end
from ..keys import Keys
from ..records import Awaiting, bits, token_of
from .ops import Conditions, Ops, moved_tail, put_held, put_scheduled, put_waiting


def given(keys: Keys, seal: Seal, bundle: str, upstream: str, entries: list[ResultEntry]) -> Put:
    """What a bundle has got of some jobs of another, signed anew. On no lease: it needs it as long as it is there."""
    jobs = bits([entry.index for entry in entries])
    plain = [msgspec.structs.replace(entry, tag=b"") for entry in entries]
    signed = seal.keyring.sign_results(Results(upstream, plain), seal.cluster)
    return Put(keys.input(bundle, upstream, jobs), encode_results(signed))


def not_well(keys: Keys, bundle: str, upstream: str, jobs: int) -> Put:
    """That some have not ended well."""
    return Put(keys.not_well(bundle, upstream, jobs), b"{}")


def forgotten(keys: Keys, bundle: str) -> Delete:
    """All that a bundle has got: it has ended."""
    return Delete(keys.inputs_of(bundle), prefix_end(keys.inputs_of(bundle)))


def let_in(who: Conditions, at: Condition, came: Put) -> Write:
    """Some of those it waits for have ended. `came`: what it has of them from here on; the token stays as it is."""
    return Write((*who, at, created(came.key, 0)), (came,))


def let_out(who: Conditions, at: Condition, gone: bytes) -> Write:
    """What was put beside it, and is true no longer, goes."""
    return Write((*who, at, Condition(gone, Target.VERSION, ">", 0)), (Delete(gone),))


def release(
    keys: Keys, who: Conditions, at: Condition, bundle: str, token: Awaiting, order: int, came: Ops = (),
    now_ms: int = 0, tail: Condition | None = None,
) -> Write:
    """All of them have: into its queue, behind those that are there, or among the scheduled if it is due later. `tail`:
    as in `enqueue`, if it goes into its queue."""
    plain = msgspec.structs.replace(token_of(token), order=order)
    put = put_waiting(keys, bundle, plain) if token.due <= now_ms else put_scheduled(keys, bundle, plain, token.due)
    held = (put_held(keys, keys.unique(token.task, token.unique), bundle, put, token.at),) if token.unique else ()
    conditions, moved = moved_tail(tail, order)
    return Write((*who, at, *conditions), (Delete(at.key), put, *held, *came, *moved))


def wake(
    keys: Keys, who: Conditions, at: Condition, bundle: str, token: Awaiting, order: int, tail: Condition | None = None,
) -> Write:
    """It was to wait until now at the most: into its queue, with what it has got by now. What it is told of the others
    is that they are late. (It has begun before: nothing of what it was enqueued to wait for is among them.)"""
    return release(keys, who, at, bundle, msgspec.structs.replace(token, due=0), order, tail=tail)


def abandon(keys: Keys, who: Conditions, at: Condition, bundle: str, flow: str, section: str) -> Write:
    """The rest of its section never came, and cannot come any more: it was never enqueued."""
    there = keys.section(flow, section), keys.section_open(section), keys.graph(flow, section)
    never = tuple(created(key, 0) for key in there)
    return Write((*who, at, *never), (Delete(at.key), Delete(keys.body(bundle))))
