"""Counters and minutes: bounded by names, true over several identities, and summed over nodes."""

from __future__ import annotations

from typing import Any

import pytest

from rota.client.errors import LedgerUnavailable
from rota.client.model import Outcome, Status
from rota.cluster.events import records as r
from rota.cluster.events.hub import Events
from rota.cluster.ledger.commits import created
from rota.cluster.ledger.ledger import Get, Put, Txn
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.telemetry.hour import Hour, Minute, merged, minus, plus, quantile
from rota.cluster.telemetry.metered import MeteredLedger
from rota.cluster.telemetry.tally import BUCKETS_S, NAMES_MAX, OTHERS, Tally

NOON = 1_800_000_000.0


def ended(outcome: Status = "ok", ran_s: float = 0.02) -> list[Outcome]:
    return [Outcome(0, outcome, ran_s=ran_s)]


def test_names_of_users_are_bounded() -> None:
    tally, events = Tally(), Events()
    tally.listen(events)
    for number in range(3 * NAMES_MAX):
        events.runs_ended(f"task{number}", ended())
        events.emit(r.BundleTaken("b", "t", f"queue{number}", 2, 1, 0.1))
    for table in (tally.ended, tally.ran, tally.waited):
        assert len(table) == NAMES_MAX + 1 and OTHERS in table
    assert sum(sum(outcomes.values()) for outcomes in tally.ended.values()) == 3 * NAMES_MAX
    assert sum(it.count for it in tally.waited.values()) == 2 * 3 * NAMES_MAX


@pytest.mark.parametrize("said", [float("nan"), float("inf"), -1.0, 1e300])
def test_what_is_no_duration_breaks_no_sum(said: float) -> None:
    tally = Tally()
    tally.runs_ended("t", ended(ran_s=said))
    assert (tally.ran["t"].count, tally.ran["t"].total_s) == (1, 0.0)


def test_events_of_the_cluster_are_counted_by_their_stable_name() -> None:
    tally, events = Tally(), Events()
    tally.listen(events)
    events.emit(r.BecameMaster("n", 7))
    events.emit(r.TookOver("n2", 3, 0.25))
    assert tally.events == {"became_master": 1, "took_over": 1}
    assert (tally.takeover_claims, tally.last_takeover_s, tally.takeovers.count) == (3, 0.25, 1)


def test_an_hour_is_sixty_minutes_and_the_sum_of_its_nodes() -> None:
    tally, hour = Tally(), Hour()
    tally.runs_ended("t", ended())
    tally.runs_ended("t", ended(outcome="failed"))
    hour.sample(NOON, tally, 10)
    tally.runs_ended("t", ended(outcome="retry", ran_s=3.0))
    hour.sample(NOON + 60, tally, 4)            # another identity has begun at 0
    first, second = hour.minutes()
    assert (first.enqueued, first.ok, first.failed, first.retried) == (10, 1, 1, 0)
    assert (second.enqueued, second.ok, second.failed, second.retried) == (4, 0, 0, 1)
    assert sum(first.ran) == 2 and sum(second.ran) == 1
    both = merged([hour.minutes(), hour.minutes()], NOON + 60)
    assert len(both) == 60 and [it.enqueued for it in both[-2:]] == [20, 8] and sum(both[-2].ran) == 4
    hour.sample(NOON + 3600, tally, 4)
    assert [it.at for it in hour.minutes()] == [int(NOON + 60) // 60]


def test_minutes_of_a_clock_that_is_ahead_are_left_out() -> None:
    assert not any(it.ok for it in merged([[Minute(int(NOON) // 60 + 5, ok=1)]], NOON))


def test_counts_add_up_and_quantiles_lie_in_their_bucket() -> None:
    assert plus([1, 2], [0, 0, 3]) == [1, 2, 3] and minus([1, 2, 3], [1, 0, 3]) == [0, 2]
    assert quantile([], 0.5) is None
    assert quantile([0, 0, 0, 10], 0.5) == pytest.approx((BUCKETS_S[2] + BUCKETS_S[3]) / 2)
    assert quantile([0] * len(BUCKETS_S) + [1], 0.99) == BUCKETS_S[-1]


async def test_commits_are_measured_and_errors_named() -> None:
    ledger = MeteredLedger(MemoryLedger())
    put = Txn((created(b"a", 0),), (Put(b"a", b"1234"), Put(b"b", b"5")))
    assert (await ledger.commit(put)).succeeded and not (await ledger.commit(put)).succeeded
    await ledger.commit(Txn((), (Get(b"a"),)))      # a look is no commit
    figures = ledger.figures
    assert (figures.commits.count, figures.operations_total, figures.bytes_total, figures.refused) == (2, 4, 10, 1)
    await ledger.status()
    assert figures.status is not None

    async def away(*_: Any, **__: Any) -> Any:
        raise LedgerUnavailable("away")

    ledger._ledger.commit = away        # type: ignore[method-assign]
    ledger._ledger.read = away          # type: ignore[method-assign]
    for call in (ledger.commit(put), ledger.read(b"a")):
        with pytest.raises(LedgerUnavailable):
            await call
    assert figures.errors == {("commit", "LedgerUnavailable"): 1, ("read", "LedgerUnavailable"): 1}
