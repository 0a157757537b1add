"""The node's side of a runner, without one: this process plays the other end of the permits."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import msgspec

from rota.client.model import Mode, Options, Outcome
from rota.worker.channel.frames import Work
from rota.worker.channel.job_numbers import job_number
from rota.worker.channel.outcomes import returned_none
from rota.worker.channel.start_permits import take
from rota.worker.channel.tally import Tally
from rota.worker.guard.guardlink import Descriptors
from rota.worker.guard.tally import new_tally, only_read
from rota.worker.pool.runner_handle import LOOK_S, PATIENCE_S, RunnerHandle, State, _part

from ..rig import new_permits


@contextmanager
def handle_of_a_runner(kind: Mode = "async") -> Iterator[RunnerHandle]:
    with handle_and_tally(kind) as (runner, _):
        yield runner


@contextmanager
def handle_and_tally(
    kind: Mode, look: Callable[[RunnerHandle], float] = lambda runner: 0.0
) -> Iterator[tuple[RunnerHandle, Tally]]:
    ours, theirs = socket.socketpair()
    asked, answered = socket.socketpair()
    permits = new_permits()
    printed, output = os.pipe()
    tally = new_tally()
    runner = RunnerHandle(1, kind, 0.0)
    runner.connect(
        Descriptors(ours, asked, os.dup(permits), printed, only_read(tally)), on_frames=lambda runner, frames: 0.0,
        on_questions=lambda runner, frames: 0.0, on_lost=lambda runner: None, look=look,
    )
    runner.state = State.READY
    with closing(theirs), closing(answered):
        try:
            yield runner, Tally(os.dup(tally))
        finally:
            runner.autopsy()
            os.close(permits)
            os.close(output)
            os.close(tally)


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


async def test_what_was_noted_comes_between_what_is_said() -> None:
    with handle_and_tally("sync") as (runner, tally):
        send(runner, 8, 1.0)
        tally.note(job_number(1, 0), 0.25)
        assert indexes(runner.settle_in_order([])) == [0]
        tally.note(job_number(1, 1), 0.5)
        tally.note(job_number(1, 3), float("nan"))      # one before it has an outcome of its own, on its way in a frame
        assert indexes(runner.settle_in_order([])) == [1] and runner.settle_in_order([]) == []
        said = runner.settle_in_order([(1, Outcome(2, "failed", error="x"))])
        assert [(outcome.index, outcome.status) for _, outcome in said] == [(2, "failed"), (3, "failed")]
        assert runner.ended == 4 and runner.bytes_ahead == len(runner.sent) == 4
        assert indexes(runner.settle_in_order([(1, Outcome(4, "ok"))])) == [4]
        tally.note(job_number(1, 4), 0.5)               # a job has said itself how it ends, and was believed
        tally.note(job_number(1, 5), 0.5)
        assert indexes(runner.settle_in_order([])) == [5] and not runner.fault
        assert runner.settle_in_order([(1, Outcome(7, "ok"))]) == []
        assert runner.fault == "a job reported the end of another one"


async def test_a_note_that_is_not_to_be_seen_yet_is_waited_for() -> None:
    with handle_and_tally("sync") as (runner, tally):
        send(runner, 3, 1.0)
        for number in (job_number(1, 0), 0, job_number(1, 2)):      # in the place of the second there is something old
            tally.note(number, 0.5)
        assert indexes(runner.settle_in_order([])) == [0] and indexes(runner.settle_in_order([])) == []
        tally._numbers[1] = job_number(1, 1)
        assert indexes(runner.settle_in_order([])) == [1, 2] and not runner.sent
        tally.note(0, 0.5)
        assert runner.settle_in_order([]) == [] and not runner.fault


async def test_what_a_runner_had_noted_when_it_died_has_ended() -> None:
    settled: list[tuple[int, Outcome]] = []

    def look(runner: RunnerHandle) -> float:
        settled.extend(runner.settle_in_order([]))
        return 0.0

    with handle_and_tally("sync", look) as (runner, tally):
        send(runner, 3, 1.0)
        take(runner.permits)
        tally.note(job_number(1, 0), 0.5)
        take(runner.permits)
        started, waiting = runner.autopsy()
        assert indexes(settled) == [0]
        assert [job[0] for _, job in started] == [1] and [job[0] for _, job in waiting] == [2]


def indexes(known: list[tuple[int, Outcome]]) -> list[int]:
    return [outcome.index for _, outcome in known]
