"""What runners say: a batch of frames from one of them is read, and everyone whom it concerns is told."""

from __future__ import annotations

import asyncio

import msgspec

from rota.client.model import Outcome, QueueInfo, TaskInfo

from ..channel.frames import (
    Broken,
    Done,
    Dropped,
    FromRunner,
    Interrupted,
    ProgressUpdate,
    Ready,
    Reported,
    Started,
    Starved,
    Touched,
    Well,
    Work,
)
from ..channel.job_numbers import job_number
from ..channel.outcomes import ERROR_CHARS_MAX, TRACEBACK_CHARS_MAX, returned_none
from .dispatch import Dispatch
from .interface import NodeSide
from .reports import Reports
from .runner_handle import RunnerHandle, State
from .staff import Staff


class Code(msgspec.Struct):
    """What the app declares, as the runner that started last has it."""

    tasks: dict[str, TaskInfo] = {}
    queues: dict[str, QueueInfo] = {}

    def info_of(self, task: str) -> TaskInfo | None:
        return self.tasks.get(task)


class Reception:
    """Of one pool. `changed` is set when a job has ended."""

    def __init__(
        self, node: NodeSide, code: Code, staff: Staff, dispatch: Dispatch, reports: Reports, changed: asyncio.Event
    ) -> None:
        self._node = node
        self._code = code
        self._staff = staff
        self._dispatch = dispatch
        self._reports = reports
        self._changed = changed

    def received(self, runner: RunnerHandle, frames: list[FromRunner]) -> float:
        """A batch from one runner. Returns how long to rest, for more to come."""
        head = runner.head()
        outcomes: list[tuple[int, Outcome]] = []
        ended: list[tuple[int, Outcome]] = []
        for frame in frames:
            if type(frame) is Well:
                if runner.kind == "async":
                    ended += runner.settle_well(frame.jobs)
                else:                   # what ends in order is held against it in order
                    outcomes += returned_none(frame.jobs)
            elif type(frame) is Done:
                outcomes += frame.outcomes
            else:
                self._heard(runner, frame)
        outcomes = runner.settle_in_order(outcomes) if runner.kind == "sync" else ended + runner.settle(outcomes)
        if runner.fault and runner.state is not State.DYING:
            self._staff.kill(runner)
        if outcomes:
            self._learn(runner, None if head is None else head[1], outcomes)
            if runner.doomed and runner.state is not State.DYING:
                for key, outcome in outcomes:
                    runner.doomed.pop(job_number(key, outcome.index), None)
            if runner.role == "apart":
                for key, outcome in outcomes:
                    self._dispatch.suspects.ended(job_number(key, outcome.index))
            self._dispatch.refill(runner)
            if self._reports:
                self._reports.flush()
            self._node.on_outcomes(outcomes)
            self._changed.set()
        return runner.rest_s()

    def look(self, runner: RunnerHandle) -> float:
        """What a runner has noted and not said. Returns how long to rest, for more to come: not where there was
        nothing."""
        if runner.kind == "async" or not runner.sent:
            return 0.0
        ended = runner.ended
        rest_s = self.received(runner, [])
        return rest_s if runner.ended > ended else 0.0

    def _learn(self, runner: RunnerHandle, head: Work | None, outcomes: list[tuple[int, Outcome]]) -> None:
        """How long jobs take. (Of an async runner's, what one of them says itself, if it is of the work that was sent
        first.)"""
        now = asyncio.get_running_loop().time()
        if runner.kind == "sync":
            task = "" if head is None else head.task
            runner.took_s = (now - runner.head_since) / len(outcomes)
            self._dispatch.pace.learn(task, runner.took_s)
        elif head is not None and outcomes[-1][0] == head.key:
            self._dispatch.pace.learn(head.task, outcomes[-1][1].ran_s)
        runner.head_since = now

    def _heard(self, runner: RunnerHandle, frame: FromRunner) -> None:
        match frame:
            case Ready():
                self._ready(runner, frame)
            case Touched(key, index):
                if job_number(key, index) in runner.sent:
                    runner.touched[job_number(key, index)] = asyncio.get_running_loop().time()
            case Interrupted(key, index):
                if job_number(key, index) in runner.sent:
                    runner.told_to_end.add(job_number(key, index))
            case Started(key, index):
                self._node.on_started(key, index)
            case ProgressUpdate():
                self._node.on_progress(frame)
            case Reported(number):
                self._reports.made(number)
            case Broken(error, traceback):
                runner.broken = f"{error[:ERROR_CHARS_MAX]}\n{traceback[:TRACEBACK_CHARS_MAX]}".rstrip()
            case Dropped():
                if runner.state is State.DROPPING:
                    runner.state = State.READY
                    self._dispatch.refill(runner)
            case Starved():
                if runner.state is State.READY:
                    runner.fault = "a job read from files of its runner"
                    self._staff.kill(runner)

    def _ready(self, runner: RunnerHandle, ready: Ready) -> None:
        if runner.state is State.STARTING:
            self._code.tasks = {info.name: info for info in ready.tasks}
            self._code.queues = {info.name: info for info in ready.queues}
            self._staff.is_up(runner)
            self._reports.flush()
            self._dispatch.refill(runner)
