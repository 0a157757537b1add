"""What to write when jobs have ended: results, failed records, retries, the claim's bitmap or its end. Pure.

A bundle that is finished costs two deletes and, if its results are kept, one put. Failed jobs carry their body and
traceback along, so many of them at once are written in several steps, each recorded in the claim's bitmap.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from rota.client.codec import Seal, encode_results, slice_body
from rota.client.model import Outcome, ResultEntry, Results

from ..clock import Clock
from ..ledger.buckets import Bucket, Buckets
from ..ledger.ledger import Delete, Put
from ..state.keys import Keys, whole
from ..state.records import Claim, FailedRecord, Failure, FinishedRecord, Token, bits, encode, hex_bits, token_of
from ..state.splitting import piece_name, shrunk
from .held import Held

FAILURES_PER_WRITE = 20
ERROR_CHARS_MAX = 200
RESULT_BYTES_PER_WRITE = 512 * 1024


class Kept(msgspec.Struct, frozen=True, gc=False):
    """Keys of a settlement that are kept for a time: on a lease of this bucket."""

    bucket: Bucket
    keys: tuple[bytes, ...]


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """One guarded write of an executor. `final`: the claim is gone after it. `leased`: False while leases of the
    buckets in `kept` have to be granted first. `without_puts`: what is left of it for a store that is full."""

    ops: tuple[Put | Delete, ...]
    final: bool
    jobs: int
    kept: tuple[Kept, ...] = ()
    leased: bool = True
    without_puts: tuple[Put | Delete, ...] | None = None

    def with_leases(self, leases: list[int]) -> Settlement:
        """One for each of `kept`."""
        lease_of = {key: lease for kept, lease in zip(self.kept, leases, strict=True) for key in kept.keys}
        ops = tuple(
            Put(op.key, op.value, lease_of[op.key]) if isinstance(op, Put) and op.key in lease_of else op
            for op in self.ops
        )
        return replace(self, ops=ops, leased=True)

    def refreshed(self) -> Settlement:
        """To be tried again: with new leases, in case an old one is what was refused."""
        return replace(self, leased=not self.kept)

    def delete_only(self) -> Settlement:
        assert self.without_puts is not None
        return replace(self, ops=self.without_puts, kept=(), leased=True, without_puts=None)


def settle(
    keys: Keys, clock: Clock, seal: Seal, buckets: Buckets, held: Held, outcomes: list[Outcome], *,
    complete: bool, node: str, keep_result_s: float, keep_finished_s: float,
) -> list[Settlement]:
    """The writes for some outcomes of a bundle, in order; the last one ends the claim if the bundle is complete."""
    steps = _steps(outcomes)
    settlements = []
    done = held.done & ~bits([outcome.index for outcome in outcomes])
    for number, step in enumerate(steps):
        done |= bits([outcome.index for outcome in step])
        last = number == len(steps) - 1
        ops: list[Put | Delete] = _failed_ops(keys, clock, held, step, node)
        final = complete and last
        if final:
            ops += _end_ops(keys, clock, held, done)
        else:
            ops.append(Put(held.record.key, encode(_shown(held, done))))
        deletes = tuple(op for op in ops if isinstance(op, Delete))
        without = deletes if final and len(deletes) == len(ops) else None
        kept: list[Kept] = []
        if step and keep_result_s > 0:
            kept.append(_keep_results(keys, seal, buckets.of(keep_result_s), held, step, ops))
        if keep_finished_s > 0 and (good := [outcome.index for outcome in step if outcome.status == "ok"]):
            kept.append(_keep_finished(keys, clock, buckets.of(keep_finished_s), held, good, node, ops))
        settlement = Settlement(tuple(ops), final, len(step), tuple(kept), not kept, without)
        leases = [entry.bucket.take(len(entry.keys)) for entry in kept]
        settlements.append(settlement.with_leases([lease or 0 for lease in leases]) if all(leases) else settlement)
    return settlements


def give_back(keys: Keys, held: Held, indexes: list[int], size: int) -> Settlement:
    """Return jobs of a bundle to their queue, in pieces of `size`: they have not begun here."""
    ops: list[Put | Delete] = [Put(held.record.key, encode(_shown(held, held.done)))]
    for part in (indexes[start : start + size] for start in range(0, len(indexes), size)):
        name = piece_name(held.bundle, part)
        token = shrunk(token_of(held.claim), len(part))
        ops.append(Put(keys.job(token.queue, token.priority, token.order, name), encode(token)))
        ops.append(Put(keys.body(name), slice_body(held.body, part)))
    return Settlement(tuple(ops), False, 0)


def _shown(held: Held, done: int) -> Claim:
    return replace(held.claim, done=hex_bits(done), back=held.back)


def _steps(outcomes: list[Outcome]) -> list[list[Outcome]]:
    """Cut so that no write is too large: by failed jobs and by bytes."""
    steps: list[list[Outcome]] = [[]]
    failures = size = 0
    for outcome in outcomes:
        weight = len(outcome.value) + len(outcome.traceback) + len(outcome.error)
        failed = outcome.status == "failed"
        if steps[-1] and (failures + failed > FAILURES_PER_WRITE or size + weight > RESULT_BYTES_PER_WRITE):
            steps.append([])
            failures = size = 0
        steps[-1].append(outcome)
        failures += failed
        size += weight
    return steps


def _failed_ops(keys: Keys, clock: Clock, held: Held, step: list[Outcome], node: str) -> list[Put | Delete]:
    ops: list[Put | Delete] = []
    claim = held.claim
    for outcome in step:
        if outcome.status != "failed":
            continue
        index = outcome.index
        record = FailedRecord(
            f"{held.bundle.partition('.')[0]}/{index}", claim.task, claim.queue, outcome.error, claim.attempt, node,
            clock.wall(),
        )
        failure = Failure(slice_body(held.body, [index]), outcome.traceback, encode(token_of(claim)))
        ops.append(Put(keys.failed_job(claim.queue, held.bundle, index), encode(record)))
        ops.append(Put(keys.failure(held.bundle, index), msgspec.msgpack.encode(failure)))
    return ops


def _end_ops(keys: Keys, clock: Clock, held: Held, done: int) -> list[Put | Delete]:
    """The claim ends: with the body if nothing is left to run, else as one token per time to run again."""
    body_key = keys.body(held.bundle)
    if not held.retries:
        return [Delete(held.record.key), Delete(body_key)]
    if held.claim.serial:
        return [Delete(held.record.key), _in_place(keys, clock, held)]
    groups: dict[tuple[str, int], list[Outcome]] = {}
    for outcome in held.retries:
        groups.setdefault((outcome.status, _coarse(outcome.delay_s)), []).append(outcome)
    ops: list[Put | Delete] = [Delete(held.record.key)]
    if len(groups) == 1:
        (group,) = groups.values()
        token = replace(_again(held.claim, group[0]), done=hex_bits(done))
        ops.append(_schedule(keys, clock, token, held.bundle, group))
        return ops
    names = []
    for group in groups.values():
        indexes = [outcome.index for outcome in group]
        name = piece_name(held.bundle, indexes)
        names.append(keys.body(name))
        ops.append(_schedule(keys, clock, shrunk(_again(held.claim, group[0]), len(group)), name, group))
        ops.append(Put(keys.body(name), slice_body(held.body, indexes)))
    if body_key not in names:
        ops.append(Delete(body_key))
    return ops


def _coarse(delay_s: float) -> int:
    """Delays that are nearly the same (jitter) count as the same: jobs that fail together retry together."""
    return 1 << max(int(delay_s).bit_length() - 1, 0)


def _again(claim: Claim, outcome: Outcome) -> Token:
    """The token of the next attempt. A snooze is not counted as one."""
    token = replace(token_of(claim), error=outcome.error[:ERROR_CHARS_MAX])
    return token if outcome.status == "snooze" else replace(token, attempt=token.attempt + 1)


def _in_place(keys: Keys, clock: Clock, held: Held) -> Put:
    """In a serial queue a job is tried again at its place, and what has failed for good stays there: it blocks."""
    (outcome,) = held.retries       # serial queues run single jobs
    token = _again(held.claim, outcome)
    if outcome.status == "failed":
        token = replace(token, attempt=held.claim.attempt, blocked=True)
    else:
        token = replace(token, not_before=int((clock.wall() + outcome.delay_s) * 1000))
    return Put(keys.job(token.queue, token.priority, token.order, held.bundle), encode(token))


def _schedule(keys: Keys, clock: Clock, token: Token, name: str, group: list[Outcome]) -> Put:
    due = clock.wall() + max(outcome.delay_s for outcome in group)
    return Put(keys.due(int(due * 1000), token.queue, name), encode(token))


def _keep_results(
    keys: Keys, seal: Seal, bucket: Bucket, held: Held, step: list[Outcome], ops: list[Put | Delete]
) -> Kept:
    entries = [_entry(outcome, held.claim.attempt) for outcome in step]
    results = Results(held.bundle.partition(".")[0], entries)
    key = keys.result(held.bundle, step[0].index, held.record.create_revision)
    ops.append(Put(key, encode_results(seal.keyring.sign_results(results, seal.cluster))))
    return Kept(bucket, (key,))


def _keep_finished(
    keys: Keys, clock: Clock, bucket: Bucket, held: Held, indexes: list[int], node: str, ops: list[Put | Delete]
) -> Kept:
    """What can be looked at afterwards: the jobs that ended well, with their arguments."""
    claim, fence = held.claim, held.record.create_revision
    record = FinishedRecord(
        whole(held.bundle), indexes, claim.task, claim.queue, claim.attempt, node, round(clock.wall(), 3)
    )
    public = keys.finished_jobs(claim.queue, held.bundle, indexes[0], fence)
    private = keys.finished_body(held.bundle, indexes[0], fence)
    ops += [Put(public, encode(record)), Put(private, slice_body(held.body, indexes))]
    return Kept(bucket, (public, private))


def _entry(outcome: Outcome, attempts: int) -> ResultEntry:
    assert outcome.status in ("ok", "failed", "cancelled")
    return ResultEntry(
        outcome.index, outcome.status, outcome.value, outcome.error, outcome.traceback, attempts, outcome.codec
    )
