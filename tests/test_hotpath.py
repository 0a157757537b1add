"""The way of every job stays short: calls of functions that one job of a bundle costs each layer, counted, not timed.

A limit is what was counted (Python 3.11) and one call. What makes a layer dearer for a reason raises its limit, and
says in the commit what every job gets for it.
"""

from __future__ import annotations

import pytest

from benchmarks import hotpath, wakeups
from rota.worker.runner.environment import surroundings

CALLS_MAX = {"client": 8.6, "runner-async": 29.8, "runner-plain": 33.5, "pool": 4.1, "telemetry": 1.4}

NODE_MAX = {
    "lone": {"transactions": 2, "turns": 16, "callbacks": 33, "tasks": 6},
    "bundle": {"transactions": 2, "turns": 16, "callbacks": 93, "tasks": 65},
    "given": {"transactions": 3, "turns": 21, "callbacks": 40, "tasks": 7},
    "given-bundle": {"transactions": 3, "turns": 21, "callbacks": 100, "tasks": 66},
}
"""Of a whole node in memory: client's link, intake, executor, outcomes; and the master, where he gives it out."""


def test_every_layer_has_its_limit() -> None:
    assert CALLS_MAX.keys() == hotpath.LAYERS.keys()


@pytest.mark.parametrize("layer", hotpath.LAYERS)
def test_a_job_costs_no_more_calls_than_before(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "LOOK_S", 3600.0)     # what is looked at now and then: once
    meter = hotpath.Meter(counting=True)
    hotpath.LAYERS[layer](meter, hotpath.WARM + 3)
    assert meter.least <= CALLS_MAX[layer]


def test_what_a_lone_job_and_a_bundle_take_of_their_node() -> None:
    """Transactions are what the store is asked for, turns of the loop what each process that has slept pays again."""
    for way, limits in NODE_MAX.items():
        found = wakeups.least(way, 60, limits)
        assert {kind: count for kind, count in found.items() if count > limits[kind]} == {}, way
