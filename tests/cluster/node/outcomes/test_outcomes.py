"""What is written when jobs have ended."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from rota.client.model import Outcome
from rota.client.wire.codec import decode_header
from rota.cluster.ledger.ledger import Delete, Put
from rota.cluster.node.claims.held import Held
from rota.cluster.node.claims.settlement import Settlement
from rota.cluster.node.claims.table import Claims
from rota.cluster.node.outcomes import settle as outcomes
from rota.cluster.node.outcomes.settle import Keep, settle
from rota.cluster.state.records import Claim, FailedRecord, Token, claim_of, decode, results_in

from ..bench import BUNDLE, KEYS, NODE, Bench, body, header, play, token

NOTHING = Keep(0.0, 0.0)
OK = Outcome(0, "ok", b"value"), Outcome(1, "ok", b"value")


async def held_at(bench: Bench, count: int = 2, *, serial: bool = False) -> Held:
    claim = claim_of(token(count), 5, serial=serial)
    record = await bench.claim(count=count, claim=claim)
    return Claims().add(
        BUNDLE, record, claim, mod_revision=record.mod_revision, header=header(count=count), body=body(count=count)
    )


def puts(settlement: Settlement, prefix: bytes) -> list[Put]:
    return [op for op in settlement.ops if isinstance(op, Put) and op.key.startswith(prefix)]


def end(bench: Bench, held: Held, *ended: Outcome, keep: Keep = NOTHING, complete: bool = True) -> list[Settlement]:
    """As the reporter does: what is to be tried again goes beside."""
    again = {"retry", "snooze"} | ({"failed"} if held.claim.serial else set())
    held.retries = [outcome for outcome in ended if outcome.status in again]
    good = [outcome for outcome in ended if outcome.status not in again]
    held.done |= sum(1 << outcome.index for outcome in good)
    return settle(bench.context, held, good, complete=complete, keep=keep)


def test_a_bundle_that_ended_well_costs_two_deletes() -> None:
    async def deed(bench: Bench) -> None:
        held = await held_at(bench)
        (settlement,) = end(bench, held, *OK)
        assert settlement.ops == (Delete(held.record.key), Delete(KEYS.body(BUNDLE)))
        assert settlement.final and settlement.jobs == 2 and settlement.leased
        assert settlement.without_puts == settlement.ops        # a full store takes it, too

    play(deed)


def test_results_are_put_on_a_lease_that_may_have_to_be_granted_first() -> None:
    async def deed(bench: Bench) -> None:
        (settlement,) = end(bench, await held_at(bench), *OK, keep=Keep(60.0, 0.0))
        assert not settlement.leased and [len(kept.keys) for kept in settlement.kept] == [1]
        leased = settlement.with_leases([9])
        (put,) = puts(leased, KEYS.results)
        assert put.lease == 9 and [entry.value for entry in results_in(put.value).entries] == [b"value", b"value"]
        assert leased.leased and not leased.refreshed().leased
        assert leased.delete_only().ops == tuple(op for op in settlement.ops if isinstance(op, Delete))
        await settlement.kept[0].bucket.lease()
        (again,) = end(bench, await held_at(bench), *OK, keep=Keep(60.0, 0.0))
        assert again.leased and all(put.lease for put in puts(again, KEYS.results))

    play(deed)


def test_what_is_kept_of_finished_jobs_leaves_out_the_others() -> None:
    async def deed(bench: Bench) -> None:
        held = await held_at(bench)
        (settlement,) = end(bench, held, OK[0], Outcome(1, "failed", error="no"), keep=Keep(0.0, 60.0))
        (private,) = puts(settlement, KEYS.finished_bodies)
        assert decode_header(private.value)[0].indexes == [0]

    play(deed)


def test_some_of_it_is_recorded_in_the_bitmap() -> None:
    async def deed(bench: Bench) -> None:
        held = await held_at(bench)
        (settlement,) = end(bench, held, OK[1], complete=False)
        (put,) = settlement.ops
        assert isinstance(put, Put) and put.key == held.record.key and not settlement.final
        claim = decode(Claim, put.value)
        assert claim is not None and claim.done_bits == 0b10

    play(deed)


def test_many_failures_are_written_in_steps() -> None:
    async def deed(bench: Bench) -> None:
        count = outcomes.FAILURES_PER_WRITE + 5
        held = await held_at(bench, count)
        steps = end(bench, held, *[Outcome(index, "failed", error=f"no {index}") for index in range(count)])
        assert [(step.final, step.jobs) for step in steps] == [(False, outcomes.FAILURES_PER_WRITE), (True, 5)]
        claim = decode(Claim, puts(steps[0], held.record.key)[0].value)
        assert claim is not None and claim.done_bits == (1 << outcomes.FAILURES_PER_WRITE) - 1
        failed = decode(FailedRecord, puts(steps[1], KEYS.failed)[0].value)
        assert failed is not None and (failed.error, failed.node, failed.reason) == ("no 20", NODE, "error")

    play(deed)


def test_large_results_are_written_in_steps() -> None:
    async def deed(bench: Bench) -> None:
        value = b"x" * (outcomes.RESULT_BYTES_PER_WRITE * 2 // 3)
        steps = end(bench, await held_at(bench), Outcome(0, "ok", value), Outcome(1, "ok", value), keep=Keep(60.0, 0.0))
        assert [step.final for step in steps] == [False, True]

    play(deed)


@pytest.mark.parametrize(("delays_s", "pieces"), [
    ((1.0, 1.2), 1), ((1.0, 5.0), 2), ((0.0, 0.9), 1), ((1.9, 2.1), 2),
])
def test_what_is_due_at_about_the_same_time_stays_together(delays_s: tuple[float, float], pieces: int) -> None:
    async def deed(bench: Bench) -> None:
        held = await held_at(bench)
        (settlement,) = end(
            bench, held, *[Outcome(i, "retry", error="no", delay_s=delay) for i, delay in enumerate(delays_s)]
        )
        scheduled = puts(settlement, KEYS.scheduled)
        assert len(scheduled) == pieces and settlement.final
        for put in scheduled:
            token_ = decode(Token, put.value)
            assert token_ is not None and (token_.attempt, token_.error) == (2, "no")
        due = [KEYS.parse_due(put.key) for put in scheduled]
        last = max(parsed[0] for parsed in due if parsed is not None)
        assert last == int((bench.clock.wall() + max(delays_s)) * 1000)

    play(deed)


def test_a_snooze_is_no_attempt() -> None:
    async def deed(bench: Bench) -> None:
        held = await held_at(bench, 1)
        (settlement,) = end(bench, held, Outcome(0, "snooze", delay_s=3.0))
        token_ = decode(Token, puts(settlement, KEYS.scheduled)[0].value)
        assert token_ is not None and token_.attempt == 1

    play(deed)


@pytest.mark.parametrize(("status", "blocked", "attempt"), [("retry", False, 2), ("failed", True, 1)])
def test_in_a_serial_queue_a_job_stays_at_its_place(status: str, blocked: bool, attempt: int) -> None:
    async def deed(bench: Bench) -> None:
        held = await held_at(bench, 1, serial=True)
        (settlement,) = end(bench, held, replace(OK[0], status=status, delay_s=2.0, error="no"))
        (put,) = puts(settlement, KEYS.jobs)
        token_ = decode(Token, put.value)
        assert put.key == KEYS.job("q", 0, 7, BUNDLE) and token_ is not None
        assert (token_.blocked, token_.attempt, token_.error) == (blocked, attempt, "no")
        assert bool(token_.not_before) is not blocked

    play(deed)


def test_jobs_given_back_count_as_done_and_as_given_back() -> None:
    async def deed(bench: Bench) -> None:
        held = await held_at(bench, 5)
        held.done, held.back = 0b11100, 3
        settlement = outcomes.give_back(bench.context, held, [2, 3, 4], 2)
        claim = decode(Claim, puts(settlement, held.record.key)[0].value)
        assert claim is not None and (claim.done_bits, claim.back) == (0b11100, 3)
        assert [put.key for put in puts(settlement, KEYS.jobs)] == [
            KEYS.job("q", 0, 7, f"{BUNDLE}.02"), KEYS.job("q", 0, 7, f"{BUNDLE}.04")
        ]

    play(deed)
