"""How many jobs a rate lets begin: its burst and what has come since, whatever becomes of the master."""

from __future__ import annotations

import random

import pytest

from rota.client.model import Rate
from rota.cluster.ledger.ledger import Event, Record
from rota.cluster.master.dispatch.rates import HOLD_MS, Rates
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import QueueRecord, RateRecord, TaskRecord, encode

KEYS = Keys("t")
PLAIN = QueueRecord()


class Desk:
    """Gives out as much as it may; the store takes `delay_ms` to say so."""

    def __init__(self, rate: Rate) -> None:
        self.tasks = {"m:f": TaskRecord("sync", rate=rate)}
        self.rates = Rates(KEYS, self.tasks)
        self.records: dict[bytes, Record] = {}
        self.revision = 10
        self.began: list[float] = []

    def reserve(self, *, applied: bool = True) -> None:
        for wanted in self.rates.wanted():
            self.revision += 1
            if applied:
                value = encode(RateRecord(wanted.until_ms))
                self.records[wanted.key] = Record(wanted.key, value, self.revision, self.revision, 1, 7)
            self.rates.reserved(wanted.name, wanted.until_ms, self.revision, applied=applied)

    def give(self, now_ms: float, most: int = 1_000, *, stored_ms: float = 0.0) -> int:
        """As many as may begin now, which are stored a moment later."""
        self.rates.begin()
        jobs = min(most, self.rates.of_task("m:f", now_ms))
        self.reserve()
        jobs = min(most, self.rates.of_task("m:f", now_ms))
        for _ in range(jobs):
            names = self.rates.take("m:f", "", "q", PLAIN, 1)
            self.began.append(now_ms + stored_ms)
            self.rates.settled(names, 1, now_ms + stored_ms, begun=True)
        return jobs

    def succeed(self) -> None:
        """Another master, which knows what is in the store."""
        self.rates = Rates(KEYS, self.tasks)
        for record in self.records.values():
            assert self.rates.see(Event(False, record))


def worst(began: list[float], rate: Rate) -> float:
    """By how many jobs the rate was passed in the worst window."""
    interval, over = rate.per_s * 1000 / rate.count, 0.0
    for first, start in enumerate(began):
        for last in range(first, len(began)):
            over = max(over, last - first + 1 - rate.burst - (began[last] - start) / interval)
    return over


@pytest.mark.parametrize("rate", [Rate(10, 1.0), Rate(10, 1.0, 5), Rate(1000, 1.0), Rate(1, 60.0, 3)])
def test_no_window_has_more(rate: Rate) -> None:
    desk, rng, now = Desk(rate), random.Random(7), 1_000_000.0
    for _ in range(300):
        now += rng.choice((0.003, 0.05, 0.9, 7.0)) * rate.per_s * 1000 / rate.count
        desk.give(now, rng.choice((1, 3, 1_000)))
        if rng.random() < 0.05:
            desk.succeed()
    assert len(desk.began) >= 10 and worst(desk.began, rate) <= 1e-6


def test_a_burst_then_one_by_one() -> None:
    desk = Desk(Rate(10, 1.0, 3))
    assert [desk.give(1_000.0) for _ in range(2)] == [3, 0]
    assert desk.rates.soonest_ms == 1_100.0
    assert desk.give(1_099.0) == 0 and desk.give(1_100.0) == 1
    assert desk.give(60_000.0) == 3


def test_a_raised_rate_is_true_at_once_of_what_waits_already() -> None:
    desk = Desk(Rate(1, 3600.0, 2))
    assert desk.give(1_000.0) + desk.give(1_000.0) == 2
    desk.tasks["m:f"] = TaskRecord("sync", rate=Rate(10, 1.0, 2))
    assert desk.give(1_050.0) == 0 and desk.give(1_150.0) == 1 and desk.give(1_250.0) == 1


def test_a_rate_that_is_lowered_owes_no_less_than_before() -> None:
    desk = Desk(Rate(10, 1.0, 2))
    assert desk.give(1_000.0) + desk.give(1_000.0) == 2
    desk.tasks["m:f"] = TaskRecord("sync", rate=Rate(1, 1.0, 2))
    assert desk.give(1_050.0) == 0 and desk.give(1_500.0) == 0 and desk.give(1_600.0) == 1


def test_the_next_master_waits_by_the_rate_of_now() -> None:
    """What was written ahead for a job an hour is no debt at ten a second."""
    desk = Desk(Rate(1, 3600.0))
    assert desk.give(1_000.0) == 1
    desk.tasks["m:f"] = TaskRecord("sync", rate=Rate(10, 1.0))
    desk.succeed()
    assert desk.give(1_000.0) == 0
    assert sum(desk.give(1_000.0 + 100.0 * number) for number in range(1, 20)) >= 10


def test_nothing_is_asked_any_more_when_the_last_rate_is_gone() -> None:
    rates = Rates(KEYS, {})
    rates.note("task", "m:f", rated=True)
    rates.note("queue", "q", rated=True)
    rates.note("task", "m:f", rated=False)
    assert rates.any
    rates.note("queue", "q", rated=False)
    assert not rates.any


def test_nothing_begins_before_it_is_written_ahead() -> None:
    desk = Desk(Rate(10, 1.0))
    assert desk.rates.of_task("m:f", 1_000.0) == 0
    desk.reserve(applied=False)
    assert desk.rates.of_task("m:f", 1_000.0) == 0
    desk.reserve()
    assert desk.rates.of_task("m:f", 1_000.0) == 1


def test_what_is_under_way_counts_as_if_it_began_now() -> None:
    desk = Desk(Rate(10, 1.0))
    assert desk.rates.of_task("m:f", 1_000.0) == 0
    desk.reserve()
    names = desk.rates.take("m:f", "", "q", PLAIN, 1)
    assert desk.rates.of_task("m:f", 5_000.0) == 0          # it may be stored this very moment
    desk.rates.settled(names, 1, 5_000.0, begun=False)      # it was not
    assert desk.give(5_000.0) == 1


def test_the_next_master_has_no_second_burst() -> None:
    rate = Rate(1, 60.0, 4)
    desk = Desk(rate)
    for _ in range(6):
        desk.give(1_000.0)
    assert len(desk.began) == 4
    desk.succeed()
    assert desk.give(2_000.0) == 0 and desk.give(60_900.0) == 0
    assert desk.give(61_000.0) == 1
    desk.succeed()
    assert desk.give(120_900.0) == 0 and desk.give(121_000.0) == 1
    assert worst(desk.began, rate) <= 1e-6


def test_what_the_master_before_had_under_way_may_just_have_been_stored() -> None:
    rate = Rate(1, 4.0)
    desk = Desk(rate)
    assert desk.give(1_000.0, stored_ms=2_500.0) == 1       # written ahead up to 5,000: it began at 3,500
    desk.succeed()
    assert desk.give(3_600.0) == desk.give(5_000.0) == desk.give(7_500.0) == 0
    assert HOLD_MS > 4_000.0 and desk.give(7_600.0) == 1
    assert worst(desk.began, rate) <= 1e-6


def test_what_is_full_again_is_forgotten() -> None:
    desk = Desk(Rate(10, 1.0))
    desk.tasks["m:f"] = TaskRecord("sync", rate_per_key=Rate(10, 1.0))
    for number in range(5_000):
        desk.rates.of_key("m:f", f"k{number}", 1_000.0 + number)
        desk.reserve()
        names = desk.rates.take("m:f", f"k{number}", "q", PLAIN, 1)
        desk.rates.settled(names, 1, 1_000.0 + number * 10, begun=True)
    assert len(desk.rates._buckets) < 3_000
