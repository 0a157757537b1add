"""What limits of tasks and of keys count."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from rota.cluster.master.dispatch.limits import Limits
from rota.cluster.master.dispatch.members import Assignment
from rota.cluster.master.dispatch.queues import UNLIMITED
from rota.cluster.state.records import TaskRecord

LIMITED = {"m:f": TaskRecord("sync", max_concurrency=5, max_per_key=2)}


def held(key: str = "") -> Assignment:
    return Assignment("m:f", "q", "sync", 1, False, True, key)


class Family:
    """Notes which of its lanes are parked."""

    def __init__(self) -> None:
        self.parked: list[object] = []

    def park(self, lane: object) -> None:
        self.parked.append(lane)

    def unpark(self, lane: object) -> None:
        self.parked.remove(lane)


def test_jobs_are_counted_by_task_and_by_key() -> None:
    limits = Limits(LIMITED)
    limits.count(held("a"), 2)
    limits.count(held(), 1)
    assert (limits.left_of_task("m:f"), limits.left_of_key("m:f", "a"), limits.left_of_key("m:f", "b")) == (2, 0, 2)
    limits.count(held("a"), -2)
    assert limits.left_of_task("m:f") == 4 and not limits.of_key           # nothing is kept of what does not run


def test_without_a_limit_there_is_none() -> None:
    limits = Limits({})
    assert limits.left_of_task("m:f") == limits.left_of_key("m:f", "a") == UNLIMITED and not limits.per_key("m:f")
    assert Limits(LIMITED).left_of_key("m:f", "") == UNLIMITED and Limits(LIMITED).per_key("m:f")


def test_a_lane_is_parked_until_its_key_has_room_or_the_task_says_otherwise() -> None:
    limits, family = Limits(LIMITED), Family()
    lane: Any = SimpleNamespace(family=family)
    limits.count(held("a"), 2)
    limits.park("m:f", "a", lane)
    limits.count(held("b"), 1)
    limits.count(held("b"), -1)
    assert family.parked == [lane]
    limits.count(held("a"), -1)
    assert family.parked == []
    limits.park("m:f", "a", lane)
    limits.changed("m:f")
    assert family.parked == []
