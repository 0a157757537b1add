"""The node's side of a runner, without one: this process plays the other end of the permits."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import msgspec

from rota.client.model import Options
from rota.worker.channel.frames import Work
from rota.worker.channel.outcomes import returned_none
from rota.worker.channel.start_permits import take
from rota.worker.guard.guardlink import Descriptors
from rota.worker.pool.runner_handle import LOOK_S, PATIENCE_S, RunnerHandle, State, _part

from ..rig import new_permits


@contextmanager
def handle_of_a_runner() -> Iterator[RunnerHandle]:
    ours, theirs = socket.socketpair()
    asked, answered = socket.socketpair()
    permits = new_permits()
    printed, output = os.pipe()
    runner = RunnerHandle(1, "async", 0.0)
    runner.connect(
        Descriptors(ours, asked, os.dup(permits), printed), on_frames=lambda runner, frames: False,
        on_questions=lambda runner, frames: False, on_lost=lambda runner: None,
    )
    runner.state = State.READY
    with closing(theirs), closing(answered):
        try:
            yield runner
        finally:
            runner.autopsy()
            os.close(permits)
            os.close(output)


def send(runner: RunnerHandle, count: int, now: float) -> None:
    jobs = [(index, b".") for index in range(count)]
    runner.send(Work(1, "b", "m:f", "q", "async", 1, 1, 0.0, "pickle", jobs), jobs, now)


async def test_a_runner_that_begins_jobs_needs_only_a_moment() -> None:
    with handle_of_a_runner() as runner:
        assert not runner.begins(1.0)         # there is nothing to begin
        send(runner, 3, 10.0)
        assert runner.begins(10.0 + PATIENCE_S / 2)
        take(runner.permits)
        assert runner.begins(10.0 + PATIENCE_S / 2 + LOOK_S)      # one has begun: patience starts anew
        assert runner.begins(10.0 + PATIENCE_S + LOOK_S)
        take(runner.permits)
        take(runner.permits)
        assert not runner.begins(10.0 + PATIENCE_S + 2 * LOOK_S)  # all have begun


async def test_a_runner_that_begins_nothing_is_blocked() -> None:
    with handle_of_a_runner() as runner:
        send(runner, 3, 10.0)
        take(runner.permits)
        assert runner.begins(10.1)
        assert not runner.begins(10.1 + PATIENCE_S)
        assert [job for _, job in runner.take_back()] == [(1, b"."), (2, b".")]
        assert not runner.begins(10.2 + PATIENCE_S)               # nothing is left that could begin


def test_a_part_of_a_bundle_says_all_that_the_whole_says() -> None:
    """Whatever field is added to `Work` has to be passed on here, by hand: it is on the path of every job."""
    whole = Work(
        1, "b-1", "app:task", "q", "async", 2, 3, 4.0, "json", [(0, b"x"), (1, b"y")], b"code",
        Options(max_attempts=2), True, 5, {"b-2": []}, flow="f", takeovers=6,
    )
    fresh = Work(0, "", "", "", "sync", 0, 0, 0.0, "pickle", [])
    same = [field for field in Work.__struct_fields__ if getattr(whole, field) == getattr(fresh, field)]
    assert not same, "this test says each field"
    assert _part(whole, whole.jobs[:1]) == msgspec.structs.replace(whole, jobs=whole.jobs[:1], function=None)


async def test_what_has_returned_none_is_settled_at_once_as_one_by_one() -> None:
    """Those that were not sent, come twice, or ran for no time that there is, included."""
    well = [(1, [0, 2, 2, 9], [0.5, 0.25, 0.25, 1.0]), (7, [0], [1.0]), (1, [1, 3], [float("nan"), -1.0])]
    with handle_of_a_runner() as runner, handle_of_a_runner() as other, handle_of_a_runner() as touched:
        for one in (runner, other, touched):
            send(one, 6, 1.0)
        touched.touched[2] = 1.0
        known = runner.settle_well(well)
        assert [(key, outcome.index, outcome.status) for key, outcome in known] == [
            (1, 0, "ok"), (1, 2, "ok"), (1, 1, "failed"), (1, 3, "failed")
        ]
        assert known == other.settle(returned_none(well)) == touched.settle_well(well)
        for one in (runner, other, touched):
            assert len(one.sent) == 2 and one.ended == 4 and one.bytes_ahead == 2
