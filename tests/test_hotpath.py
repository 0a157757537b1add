"""The way of every job stays short: calls of functions that one job of a bundle costs each layer, counted, not timed.

A limit is what was counted (Python 3.11) and one call. What makes a layer dearer for a reason raises its limit, and
says in the commit what every job gets for it.
"""

from __future__ import annotations

import pytest

from benchmarks import hotpath
from rota.worker.runner.environment import surroundings

CALLS_MAX = {"client": 8.6, "runner-async": 37.8, "runner-plain": 33.5, "pool": 6.1, "telemetry": 2.1}


def test_every_layer_has_its_limit() -> None:
    assert CALLS_MAX.keys() == hotpath.LAYERS.keys()


@pytest.mark.parametrize("layer", hotpath.LAYERS)
def test_a_job_costs_no_more_calls_than_before(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "LOOK_S", 3600.0)     # what is looked at now and then: once
    meter = hotpath.Meter(counting=True)
    hotpath.LAYERS[layer](meter, hotpath.WARM + 3)
    assert meter.least <= CALLS_MAX[layer]
