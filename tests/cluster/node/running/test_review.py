"""A bundle that has not ended after a while is looked at."""

from __future__ import annotations

from rota.cluster.clock import SystemClock
from rota.cluster.ledger.ledger import Record
from rota.cluster.node.claims.held import Held
from rota.cluster.node.claims.slow import KEEP_SLICES, Pace
from rota.cluster.node.running.review import Review
from rota.cluster.state.records import claim_of
from rota.cluster.state.throughput import SLICE_S

from ..bench import BUNDLE, FakeRunners, header, token

COUNT = 10


class Clock(SystemClock):
    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Stage:
    def __init__(self) -> None:
        self.runners, self.clock = FakeRunners(), Clock()
        self.review = Review(self.runners, Pace(), self.clock)
        self.held = Held(
            1, BUNDLE, Record(b"", b"", 5, 5, 1), claim_of(token(COUNT), 5), header(count=COUNT),
            jobs=[(index, b"x") for index in range(COUNT)], since=self.clock.now,
        )
        self.runners.submit(self.held.work(self.held.jobs))


def test_behind_jobs_that_take_long_the_whole_bundle_goes() -> None:
    stage = Stage()
    stage.runners.is_busy = True
    share = stage.review.of(stage.held)
    assert share is not None and share.whole and stage.runners.withdrawn == [1]


def test_with_free_slots_a_part_stays() -> None:
    stage = Stage()
    share = stage.review.of(stage.held)
    assert share is not None and not share.whole and share.keep and share.back
    assert sorted(share.keep + share.back) == list(range(COUNT))


def test_what_is_soon_over_is_left_alone_unless_it_is_late() -> None:
    stage = Stage()
    stage.review._pace.note_ended("async", 1_000, stage.clock.now)
    stage.clock.now += SLICE_S
    assert stage.review.of(stage.held) is None and not stage.runners.withdrawn
    stage.clock.now += KEEP_SLICES * SLICE_S
    assert stage.review.of(stage.held) is not None


def test_what_the_runners_keep_or_begin_is_left_alone() -> None:
    stage = Stage()
    stage.runners.keeps = lambda key: True  # type: ignore[method-assign]
    assert stage.review.of(stage.held) is None
    stage.runners.keeps = lambda key: False  # type: ignore[method-assign]
    stage.runners.begins = lambda mode: True  # type: ignore[method-assign]
    assert stage.review.of(stage.held) is None and not stage.runners.withdrawn
