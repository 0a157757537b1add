"""What a node says of the jobs that run on it."""

from __future__ import annotations

from rota.cluster.clock import SystemClock
from rota.cluster.ledger.ledger import Record
from rota.cluster.node.claims.held import LocalJob
from rota.cluster.node.membership.standing import Standing
from rota.cluster.node.running.shown import SHOWN_AFTER_S, Shown
from rota.cluster.node.running.volatile import FIRST_KEY
from rota.cluster.state.records import claim_of

from ..bench import BUNDLE, FakeRunners, header, token


class Clock(SystemClock):
    now = 100.0

    def wall(self) -> float:
        return self.now


class Volatile:
    """One job of level `none`, which is on its way."""

    waiting = LocalJob("v-1", 0, "m:v", "q", 1, True)

    def job_of(self, key: int, index: int) -> LocalJob | None:
        return self.waiting if (key, index) == (FIRST_KEY, 0) else None

    def find(self, bundle: str, index: int) -> LocalJob | None:
        return self.waiting if (bundle, index) == ("v-1", 0) else None


class Stage:
    def __init__(self) -> None:
        self.clock, self.runs = Clock(), list[tuple[int, int]]()
        runners, standing = FakeRunners(), Standing()
        runners.running = lambda: self.runs  # type: ignore[method-assign]
        self.shown = Shown(runners, self.clock, standing, Volatile())  # type: ignore[arg-type]
        self.held = standing.claims.add(
            BUNDLE, Record(b"", b"", 5, 5, 1), claim_of(token(2), 5), header=header(), jobs=[(0, b""), (1, b"")]
        )


def test_what_runs_for_a_while_is_shown_the_oldest_first() -> None:
    stage = Stage()
    stage.runs = [(stage.held.key, 1)]
    assert stage.shown.look() == []                     # quick jobs cost nothing
    stage.clock.now += 0.5
    stage.runs = [(FIRST_KEY, 0), (stage.held.key, 1)]
    stage.shown.look()
    stage.clock.now += SHOWN_AFTER_S
    assert [(job.bundle, job.index, job.since_ms) for job in stage.shown.look()] == [
        (BUNDLE, 1, 100_000), ("v-1", 0, 100_500),
    ]
    stage.runs = []
    assert stage.shown.look() == []


def test_when_a_job_began_is_kept_for_what_becomes_of_it() -> None:
    stage = Stage()
    stage.runs = [(stage.held.key, 0)]
    stage.shown.look()
    assert stage.held.began == {0: 100_000}


def test_a_job_is_found_by_its_name() -> None:
    stage = Stage()
    assert stage.shown.job(BUNDLE, 0) is None
    stage.runs = [(stage.held.key, 0)]
    running, waiting = stage.shown.job(BUNDLE, 0), stage.shown.job("v-1", 0)
    assert running is not None and running.since_ms == 100_000
    assert waiting is not None and waiting.since_ms == 0            # it has not begun
