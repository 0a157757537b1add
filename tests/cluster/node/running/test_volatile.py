"""Jobs without persistence: in this node's memory, and nowhere else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rota.client.errors import InvalidJob, Overloaded
from rota.client.ids import job_id
from rota.client.model import Enqueue, Outcome, Receipt
from rota.client.wire.keyring import UNSIGNED, Seal
from rota.cluster.events.hub import Events
from rota.cluster.events.records import VolatileFailed, VolatileLost
from rota.cluster.node.running import volatile
from rota.cluster.node.running.volatile import FIRST_KEY, RESULTS_MAX, Volatile
from rota.cluster.recent import Recent
from rota.cluster.state.records import results_in
from rota.worker.channel.frames import Work

from ..bench import BUNDLE, OTHER, FakeRunners, body, header


class Memory:
    def __init__(self) -> None:
        self.runners = FakeRunners()
        self.pushed: list[tuple[str, int, str]] = []      # (bundle, index, status)
        self.may_take = True
        self.events = Events()
        self.kept: list[tuple[str, int, int]] = []        # (bundle, index, attempts) of what failed for good
        self.results: Recent[str, list[bytes]] = Recent(RESULTS_MAX)
        others: Any = self      # who is told, how the node stands, who keeps failures
        self.volatile = Volatile(
            self.runners, Seal(UNSIGNED, "c"), others, others, self.events, others, self.results
        )

    @property
    def is_sure(self) -> bool:
        return self.may_take

    def keep(self, work: Work, body: bytes, attempts: int, outcome: Outcome) -> None:
        self.kept.append((work.bundle, outcome.index, attempts))

    def publish(self, bundle: str, record: bytes) -> None:
        self.pushed += [(bundle, entry.index, entry.status) for entry in results_in(record).entries]

    def take(self, bundle: str = BUNDLE, **more: Any) -> object:
        enqueue = Enqueue(bundle, "m:f", "q", 2, "async", body(bundle), level="none", **more)
        return self.volatile.take(enqueue, (body(bundle), header(bundle), [(0, b"x"), (1, b"x")]))

    def end(self, *outcomes: Outcome) -> None:
        for outcome in outcomes:
            self.volatile.on_outcome(self.runners.given[-1].key, outcome)


def test_it_is_given_to_runners_at_once_and_its_results_to_who_waits() -> None:
    memory = Memory()
    assert isinstance(memory.take(), Receipt) and memory.volatile.held == 2
    (work,) = memory.runners.given
    assert work.key >= FIRST_KEY and work.fence == 0
    assert memory.volatile.past(BUNDLE) == [] and memory.volatile.past(OTHER) is None
    memory.end(Outcome(0, "ok"), Outcome(1, "cancelled"))
    assert memory.pushed == [(BUNDLE, 0, "ok"), (BUNDLE, 1, "cancelled")] and memory.volatile.held == 0
    assert len(memory.volatile.past(BUNDLE) or ()) == 2


def test_a_repeat_runs_nothing() -> None:
    memory = Memory()
    assert memory.take() == memory.take() and len(memory.runners.given) == 1


@pytest.mark.parametrize("more", [{"delay_s": 1.0}, {"function": "digest"}])
def test_what_it_cannot_be(more: dict[str, Any]) -> None:
    memory = Memory()
    assert isinstance(memory.take(**more), InvalidJob) and not memory.runners.given


def test_a_task_that_this_node_does_not_know() -> None:
    memory = Memory()
    memory.runners.tasks.clear()
    assert isinstance(memory.take(), InvalidJob)


def test_it_has_a_bound_and_a_node_that_leaves_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    monkeypatch.setattr(volatile, "JOBS_MAX", 3)
    assert isinstance(memory.take(), Receipt) and isinstance(memory.take(OTHER), Overloaded)
    memory.end(Outcome(0, "ok"), Outcome(1, "ok"))
    memory.may_take = False
    assert isinstance(memory.take(OTHER), Overloaded)
    memory.may_take = True
    assert isinstance(memory.take(OTHER), Receipt)


async def test_it_is_tried_again_here() -> None:
    memory, said = Memory(), []
    memory.events.listen(said.append, [VolatileFailed])
    memory.take()
    memory.end(Outcome(0, "retry"), Outcome(1, "snooze"))
    await asyncio.sleep(0.01)
    assert [(work.attempt, [index for index, _ in work.jobs]) for work in memory.runners.given[1:]] == [
        (2, [0]), (1, [1])
    ]
    memory.end(Outcome(0, "failed", error="no"))
    assert said == [VolatileFailed(job_id(BUNDLE, 0), "no")] and memory.pushed == [(BUNDLE, 0, "failed")]


async def test_it_is_lost_with_its_runners() -> None:
    memory = Memory()
    memory.take()
    memory.end(Outcome(0, "retry"))
    said: list[object] = []
    memory.events.listen(said.append, [VolatileLost])
    memory.volatile.lose()
    memory.volatile.lose()
    assert said == [VolatileLost(2)] and memory.volatile.held == 0
    await asyncio.sleep(0.01)
    memory.end(Outcome(1, "ok"))
    assert len(memory.runners.given) == 1 and memory.pushed == []


def test_results_are_forgotten_in_their_order() -> None:
    memory = Memory()
    memory.results._size = 1
    memory.take()
    memory.take(OTHER)
    assert memory.volatile.past(BUNDLE) is None and memory.volatile.past(OTHER) == []


def test_what_fails_for_good_is_kept_and_what_rests_can_be_cancelled_at_once() -> None:
    async def deed() -> None:
        memory = Memory()
        memory.take()
        memory.end(Outcome(0, "retry", delay_s=60.0), Outcome(1, "failed", error="no"))
        assert memory.kept == [(BUNDLE, 1, 1)]
        told = memory.volatile.find(BUNDLE, 0)
        assert told is not None and (told.attempt, told.volatile) == (2, True)
        assert memory.volatile.cancel(BUNDLE, 0) and not memory.volatile.cancel(BUNDLE, 0)
        assert memory.pushed[-1] == (BUNDLE, 0, "cancelled") and memory.volatile.held == 0
        assert memory.volatile.find(BUNDLE, 0) is None and not memory.volatile.cancel(OTHER, 0)

    asyncio.run(deed())
