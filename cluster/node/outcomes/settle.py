"""What to write when jobs have ended: results, failed records, retries, the claim's bitmap or its end. Pure.

A bundle that is finished costs two deletes and, if its results are kept, one put. Failed jobs carry their body and
traceback along, so many of them at once are written in several steps, each recorded in the claim's bitmap.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from rota.client.model import JOBS_PER_BUNDLE_MAX, Outcome, ResultEntry, Terms, Upstream

from ...clock import Clock
from ...context import IdentityContext
from ...ledger.ledger import Delete, Put
from ...state import moves
from ...state.moves.remembered import FORGOTTEN_MAX
from ...state.records import Token, awaiting_of, bits, due_by, token_of
from ...state.splitting import piece_name
from ...state.words import Words
from ..claims.held import SUSPENDED, Held
from ..claims.settlement import Kept, Settlement

FAILURES_PER_WRITE = 20
FORGETTING_PER_WRITE = FORGOTTEN_MAX
"""Outcomes of jobs that remember something."""

PARTS_PER_WRITE = 30
"""Into so many pieces a wide bundle goes apart in one write."""

GOES_ON = ("retry", "snooze", *SUSPENDED)
"""What a job has ended with that is run again."""
SLEEP_TOGETHER_MS = 1_000
"""Jobs of one bundle that wake up in the same second do so together."""
ERROR_CHARS_MAX = 200
NOT_WELL_S = 3600.0
"""How long it is kept at the least that a job did not end well: so what left nothing has ended well (`upstream.py`)."""

RESULT_BYTES_PER_WRITE = 512 * 1024


class Keep(msgspec.Struct, frozen=True):
    """How long what has ended is kept, where neither the enqueue nor the task says. In seconds; 0: not at all."""

    result_s: float
    finished_s: float


def settle(
    context: IdentityContext, held: Held, outcomes: list[Outcome], *, complete: bool, keep: Keep
) -> list[Settlement]:
    """The writes for some outcomes of a bundle, in order; the last one ends the claim if the bundle is complete."""
    keys, buckets = context.keys, context.buckets
    well = _all_well(outcomes)
    steps = _steps(outcomes, FORGETTING_PER_WRITE if held.memory is not None else JOBS_PER_BUNDLE_MAX, well=well)
    settlements = []
    again = _again_in_parts(context, held) if complete else []
    before, again = again[:-PARTS_PER_WRITE], again[-PARTS_PER_WRITE:]
    once = len(steps) == 1 and not before       # as nearly always: then it is known already what has ended
    done = held.done if once else held.done & ~bits([outcome.index for outcome in outcomes])
    for start in range(0, len(before), PARTS_PER_WRITE):
        parts = before[start : start + PARTS_PER_WRITE]
        done |= bits([index for indexes, _, _ in parts for index in indexes])
        settlements.append(Settlement(
            moves.part_with(keys, context.seal, held.record.key, held.bundle, held.shown(done), held.body, parts),
            False, 0,
        ))
    for number, step in enumerate(steps):
        if not once:
            done |= bits([outcome.index for outcome in step])
        last = number == len(steps) - 1
        all_well = well or _all_well(step)
        ops: list[Put | Delete] = [] if all_well else _failures(context, held, step)
        final = complete and last
        if held.memory is not None:
            held.failed.update(outcome.index for outcome in step if outcome.status == "failed")
            if not final:
                ended = [outcome.index for outcome in step if outcome.status != "failed"]
                ops += _forgotten(context, held, ended, final=False)
        ops += _end(context, held, done, again) if final else moves.record(held.record.key, held.shown(done))
        deletes = tuple(op for op in ops if isinstance(op, Delete))
        without = deletes if final and all_well and len(deletes) == len(ops) else None
        kept: list[Kept] = []
        result_s = keep.result_s if all_well else max(keep.result_s, NOT_WELL_S)
        if step and result_s > 0:
            entries = _entries(step, held.claim.attempt, all_well=all_well)
            ops.append(put := moves.result(
                keys, context.seal, held.bundle, entries, held.record.create_revision, of=held.claim,
                node=context.node, began_ms=held.began_ms(step), at_ms=int(context.clock.wall() * 1000),
                together=held.header is not None and held.header.signed_whole,
            ))
            kept.append(Kept(buckets.of(result_s), (put.key,)))
        if keep.finished_s > 0 and (good := [outcome.index for outcome in step if outcome.status == "ok"]):
            ops += (puts := _finished(context, held, good))
            kept.append(Kept(buckets.of(keep.finished_s), tuple(put.key for put in puts)))
        settlement = Settlement(tuple(ops), final, len(step), tuple(kept), not kept, without)
        leases = [entry.bucket.take(len(entry.keys)) for entry in kept]
        settlements.append(settlement.with_leases([lease or 0 for lease in leases]) if all(leases) else settlement)
    return settlements


def give_back(context: IdentityContext, held: Held, indexes: list[int], size: int) -> Settlement:
    """Return jobs of a bundle to their queue, in pieces of `size`: they have not begun here."""
    claim = held.shown(held.done)
    return Settlement(
        moves.give_back(
            context.keys, context.seal, held.record.key, held.bundle, claim, held.body, indexes, size
        ), False, 0,
    )


def _steps(outcomes: list[Outcome], jobs_max: int, *, well: bool) -> list[list[Outcome]]:
    """Cut so that no write is too large: by failed jobs and by bytes, and by jobs. `well`: they all ended so."""
    size = sum([len(outcome.value) for outcome in outcomes])
    if len(outcomes) <= jobs_max and size <= RESULT_BYTES_PER_WRITE and well:
        return [outcomes]               # as nearly always, and as it would come out below
    steps: list[list[Outcome]] = [[]]
    failures = size = 0
    for outcome in outcomes:
        weight = len(outcome.value) + len(outcome.traceback) + len(outcome.error)
        failed = outcome.status == "failed"
        full = len(steps[-1]) == jobs_max
        if steps[-1] and (
            failures + failed > FAILURES_PER_WRITE or size + weight > RESULT_BYTES_PER_WRITE or full
        ):
            steps.append([])
            failures = size = 0
        steps[-1].append(outcome)
        failures += failed
        size += weight
    return steps


def _all_well(outcomes: list[Outcome]) -> bool:
    return [outcome.status for outcome in outcomes].count("ok") == len(outcomes)


def _failures(context: IdentityContext, held: Held, step: list[Outcome]) -> list[Put | Delete]:
    failed = [outcome for outcome in step if outcome.status == "failed"]
    if not failed:
        return []
    words = Words(context.seal)
    bodies = context.seal.slices(held.body, ([outcome.index] for outcome in failed))
    return [
        put for outcome, body in zip(failed, bodies, strict=True) for put in moves.fail(
            context.keys, held.bundle, outcome.index, words.token(held.bundle, _ended_token(context, held, [outcome])),
            body=body, error=outcome.error, traceback=outcome.traceback,
            node=context.node, at_s=context.clock.wall(), words=words,
        )
    ]


Part: TypeAlias = tuple[list[int], Token, int]
"""Jobs that are run again together: which, their token, and when (ms)."""


def _end(context: IdentityContext, held: Held, done: int, again: list[Part]) -> moves.Ops:
    """The claim ends: with the body if nothing is left to run, else as one token per time to run again."""
    key, bundle, keys = held.record.key, held.bundle, context.keys
    gone = _not_needed_on(context, held)
    if not held.retries:
        return (*moves.end(keys, key, bundle, held.claim), *gone)
    if held.claim.serial:
        (outcome,) = held.retries       # serial queues run single jobs
        token = _again(context, held, [outcome])
        if outcome.status == "failed":
            return moves.block(keys, key, bundle, replace(token, attempt=held.claim.attempt))
        in_place = moves.sleep_in_place if outcome.status == "sleep" else moves.retry_in_place
        return in_place(keys, key, bundle, token, _due_ms(context.clock, [outcome]))
    move = moves.suspend if any(outcome.status in SUSPENDED for outcome in held.retries) else moves.retry
    return (*move(keys, context.seal, key, bundle, held.body, done, again), *gone)


def _again_in_parts(context: IdentityContext, held: Held) -> list[Part]:
    """One for each time to run again; last the one that is called as the claim is (where they are so many that some
    go before the others, that name is free only then)."""
    if held.claim.serial:
        return []
    groups: dict[tuple[str, int], list[Outcome]] = {}
    for outcome in held.retries:
        groups.setdefault((outcome.status, _company(context.clock, outcome)), []).append(outcome)
    expires = held.claim.expires
    parts = [
        (
            [outcome.index for outcome in group], _again(context, held, group),
            _due_ms(context.clock, group) if status == "sleep" else due_by(_due_ms(context.clock, group), expires),
        )
        for (status, _), group in groups.items()
    ]
    return parts if len(parts) <= PARTS_PER_WRITE else sorted(
        parts, key=lambda part: piece_name(held.bundle, part[0]) == held.bundle
    )


def _company(clock: Clock, outcome: Outcome) -> int:
    """Jobs of a bundle for which it is the same stay together."""
    if outcome.status == "wait":
        return outcome.index
    return _due_ms(clock, [outcome]) // SLEEP_TOGETHER_MS if outcome.status == "sleep" else _coarse(outcome.delay_s)


def _not_needed_on(context: IdentityContext, held: Held) -> moves.Ops:
    """What jobs have remembered goes with them, unless they are tried again, or lie in the failed set."""
    if held.memory is None:
        return ()
    on = held.failed.union([outcome.index for outcome in held.retries])
    return _forgotten(context, held, [index for index, _ in held.jobs if index not in on], final=True)


def _forgotten(context: IdentityContext, held: Held, indexes: list[int], *, final: bool) -> moves.Ops:
    """What these jobs have remembered goes with them."""
    if held.memory is None:
        return ()
    return moves.forget_steps(context.keys, held.bundle, held.memory.ended(indexes, final=final))


def _coarse(delay_s: float) -> int:
    """Delays that are nearly the same (jitter) count as the same: jobs that fail together retry together."""
    return 1 << max(int(delay_s).bit_length() - 1, 0)


def _again(context: IdentityContext, held: Held, group: list[Outcome]) -> Token:
    """The token of the next attempt. A snooze is not counted as one, nor is what sleeps or waits for others."""
    outcome = group[0]
    if outcome.status in SUSPENDED:     # (it has begun: it cannot expire any more)
        token = replace(token_of(held.claim), expires=0)
        if outcome.status == "sleep":
            return token
        awaiting = awaiting_of(token, Terms(after=upstream_in(outcome), on_upstream="run"), 0)
        return replace(awaiting, until=_due_ms(context.clock, [outcome])) if outcome.delay_s else awaiting
    token = replace(_ended_token(context, held, group), error=outcome.error[:ERROR_CHARS_MAX])
    token = Words(context.seal).token(held.bundle, token)
    return token if outcome.status == "snooze" else replace(token, attempt=token.attempt + 1)


def _ended_token(context: IdentityContext, held: Held, group: list[Outcome]) -> Token:
    """The token of jobs that have just ended, this attempt among those that are over."""
    how = group[0].error.partition("\n")[0] or {"snooze": "snoozed"}.get(group[0].status, "it asked to be tried again")
    verified = Words(context.seal).heard_token(held.bundle, token_of(held.claim))
    now_ms = int(context.clock.wall() * 1000)
    return replace(verified, past=verified.and_past(context.node, held.began_ms(group), now_ms, how))


_decode_upstream = msgspec.msgpack.Decoder(tuple[Upstream, ...]).decode


def upstream_in(outcome: Outcome) -> tuple[Upstream, ...]:
    """What a job has said that it waits for (checked when it came: `checked`)."""
    return _decode_upstream(outcome.value)


def _due_ms(clock: Clock, group: list[Outcome]) -> int:
    return int((clock.wall() + max(outcome.delay_s for outcome in group)) * 1000)


def _finished(context: IdentityContext, held: Held, indexes: list[int]) -> tuple[Put, Put]:
    return moves.finished(
        context.keys, context.seal, held.bundle, indexes, held.claim, held.record.create_revision, node=context.node,
        at_s=round(context.clock.wall(), 3), body=held.body,
    )


def _entries(step: list[Outcome], attempts: int, *, all_well: bool) -> list[ResultEntry]:
    if not all_well:
        return [_entry(outcome, attempts) for outcome in step]
    return [        # as below, in order: names would cost
        ResultEntry(outcome.index, "ok", outcome.value, "", "", attempts, outcome.codec) for outcome in step
    ]


def _entry(outcome: Outcome, attempts: int) -> ResultEntry:
    assert outcome.status in ("ok", "failed", "cancelled", "expired")
    return ResultEntry(
        outcome.index, outcome.status, outcome.value, outcome.error, outcome.traceback, attempts, outcome.codec
    )
