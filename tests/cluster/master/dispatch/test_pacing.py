"""When the master decides: what only arrives may wait a moment for more."""

from __future__ import annotations

import pytest

from rota.cluster.master.dispatch.pacing import CALM_S, ROUND_BUNDLES, ROUND_JOBS, Pacing
from rota.cluster.state.records import QueueRecord, TaskRecord, encode

from ..table import KEYS, Table


def after_a_round(at: float = 100.0) -> Pacing:
    """One that has just given something out."""
    pacing = Pacing()
    pacing.decided(at, gave=True)
    return pacing


def test_nothing_to_decide() -> None:
    assert after_a_round().due(101.0) is None


def test_after_a_pause_nothing_waits() -> None:
    for calm in (False, True):
        pacing = after_a_round()
        pacing.arrived(1, calm=calm)
        assert pacing.due(100.0 + CALM_S) == 100.0 + CALM_S


def test_a_stream_that_nobody_waits_for_waits_a_moment_and_goes_along_with_what_does_not() -> None:
    pacing = after_a_round()
    pacing.arrived(1, calm=True)
    assert pacing.due(100.001) == 100.0 + CALM_S
    pacing.arrived(1, calm=False)
    assert pacing.due(100.001) == 100.001


def test_much_waits_for_nothing() -> None:
    many, large = after_a_round(), after_a_round()
    for _ in range(ROUND_BUNDLES):
        many.arrived(1, calm=True)
    large.arrived(ROUND_JOBS, calm=True)
    assert many.due(100.001) == large.due(100.001) == 100.001


def test_what_is_not_an_arrival_is_decided_at_once_and_takes_arrivals_along() -> None:
    pacing = after_a_round()
    pacing.arrived(1, calm=True)
    pacing.changed()
    assert pacing.due(100.001) == 100.001
    pacing.decided(100.001, gave=False)
    assert pacing.due(100.002) is None


def test_a_round_that_gave_nothing_does_not_count() -> None:
    pacing = after_a_round()
    pacing.decided(100.004, gave=False)
    pacing.arrived(1, calm=True)
    assert pacing.due(100.004) == 100.0 + CALM_S


def settled(table: Table) -> None:
    """All that has happened was looked at."""
    while table.decide():
        pass


def test_a_slot_that_comes_free_is_nothing_where_nothing_waits_for_it() -> None:
    table = Table()
    table.member("n1", slots=2)
    token = table.job("a")
    assert table.given() == [("a", "n1")]
    settled(table)
    table.claimed("n1", "a", token)
    table.ended("n1", "a")
    assert table.picture.due(table.now) is None


def test_a_slot_that_something_waits_for() -> None:
    table = Table()
    table.member("n1", slots=1)
    token = table.job("a", weight=1, lost=1, orphanings=1)          # alone on its node
    assert table.given() == [("a", "n1")]
    other = table.job("b", lost=1, orphanings=1)
    settled(table)
    table.claimed("n1", "a", token)
    assert table.picture.due(table.now) is None
    table.ended("n1", "a")
    assert table.picture.due(table.now) == table.now and other.lost


@pytest.mark.parametrize("what", ["serial", "queue", "task", "key"])
def test_the_end_of_what_is_limited_lets_the_next_begin_at_once(what: str) -> None:
    table = Table()
    table.member("n1", slots=4)
    if what in ("serial", "queue"):
        limits = QueueRecord(serial=True) if what == "serial" else QueueRecord(max_concurrency=1)
        table.put(KEYS.queue("q"), encode(limits))
    else:
        record = TaskRecord("sync", max_concurrency=1) if what == "task" else TaskRecord("sync", max_per_key=1)
        table.put(KEYS.task("m:f"), encode(record))
    token = table.job("a", key="k")
    assert table.given() == [("a", "n1")]
    settled(table)
    table.claimed("n1", "a", token)
    table.job("b", key="k", calm=True)
    settled(table)                              # looked at once: it may not begin
    table.ended("n1", "a")
    assert table.picture.due(table.now) == table.now
    assert table.given() == [("b", "n1")]


def test_the_end_of_what_is_limited_takes_along_what_was_not_looked_at_yet() -> None:
    table = Table()
    table.member("n1", slots=4)
    table.put(KEYS.queue("q"), encode(QueueRecord(serial=True)))
    token = table.job("a")
    assert table.given() == [("a", "n1")]
    settled(table)
    table.claimed("n1", "a", token)
    table.job("b", calm=True)
    assert table.picture.due(table.now) != table.now
    table.ended("n1", "a")
    assert table.picture.due(table.now) == table.now


def test_members_settings_and_orphans_are_decided_at_once() -> None:
    table = Table()
    settled(table)
    for deed in (
        lambda: table.member("n1"), lambda: table.put(KEYS.queue("q"), encode(QueueRecord(paused=True))),
        lambda: table.put(KEYS.task("m:f"), encode(TaskRecord("sync"))), lambda: table.delete(KEYS.node("n1")),
    ):
        deed()
        assert table.picture.due(table.now) == table.now
        settled(table)
        assert table.picture.due(table.now) is None
