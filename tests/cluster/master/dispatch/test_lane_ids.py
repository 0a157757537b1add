"""Which tokens can go to the same nodes, and share a key of limits."""

from __future__ import annotations

from rota.cluster.master.dispatch.lane_ids import LOST, PLAIN, SUSPECT, lane_name, lane_of
from rota.cluster.state.records import Token


def token(**more: object) -> Token:
    fields = {"task": "m:f", "queue": "q", "priority": 0, "order": 1, "count": 1, "mode": "sync", "at": 0}
    return Token(**(fields | more))  # type: ignore[arg-type]


def test_a_task_known_by_name_goes_anywhere_whatever_mode_it_was_enqueued_in() -> None:
    assert lane_of(token()) == lane_of(token(mode="async", queue="r", order=9))
    assert lane_of(token(function="f" * 64)) != lane_of(token(function="f" * 64, mode="async"))


def test_what_decides_where_it_may_run_tells_lanes_apart() -> None:
    lanes = {lane_of(token(**more)) for more in (
        {}, {"task": "m:g"}, {"weight": 2}, {"requires": ("gpu",)}, {"signed": "k"}, {"orphanings": 1}, {"lost": 1},
    )}
    assert len(lanes) == 7


def test_what_was_lost_runs_alone() -> None:
    assert lane_of(token()).care == PLAIN
    assert lane_of(token(orphanings=1)).care == SUSPECT and not lane_of(token(orphanings=1)).alone
    assert lane_of(token(orphanings=1, lost=1)).care == LOST and lane_of(token(lost=1)).alone


def test_keys_of_limits_rates_and_tenants_name_lanes() -> None:
    names = [lane_name(token(**more)) for more in ({}, {"key": "a"}, {"fair": "a"}, {"rate_key": "a"})]
    assert len(set(names)) == 4 and lane_name(token(key="a")) == "a"
