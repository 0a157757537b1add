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
    Ready,
    Reported,
    Said,
    Started,
    Starved,
    Touched,
    Well,
)
from ..channel.outcomes import ERROR_CHARS_MAX, TRACEBACK_CHARS_MAX, returned_none
from ..channel.slots import slot_of
from .dispatch import Dispatch
from .interface import NodeSide
from .reports import Reports
from .seat import Seat, State
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

    def received(self, seat: Seat, frames: list[FromRunner]) -> bool:
        """A batch from one runner. True if more will come soon."""
        head = seat.head()
        outcomes: list[tuple[int, Outcome]] = []
        for frame in frames:
            if type(frame) is Well:
                outcomes += returned_none(frame.jobs)
            elif type(frame) is Done:
                outcomes += frame.outcomes
            else:
                self._heard(seat, frame)
        outcomes = seat.settle(outcomes)
        if seat.fault and seat.state is not State.DYING:
            self._staff.kill(seat)
        if outcomes:
            self._learn(seat, "" if head is None else head[1].task, len(outcomes))
            if seat.doomed and seat.state is not State.DYING:
                for key, outcome in outcomes:
                    seat.doomed.pop(slot_of(key, outcome.index), None)
            if seat.role == "apart":
                for key, outcome in outcomes:
                    self._dispatch.suspects.ended(slot_of(key, outcome.index))
            self._dispatch.refill(seat)
            if self._reports:
                self._reports.flush()
            self._node.on_outcomes(outcomes)
            self._changed.set()
        return bool(seat.sent)

    def _learn(self, seat: Seat, task: str, count: int) -> None:
        now = asyncio.get_running_loop().time()
        if seat.kind == "sync":
            self._dispatch.pace.learn(task, (now - seat.head_since) / count)
        seat.head_since = now

    def _heard(self, seat: Seat, frame: FromRunner) -> None:
        match frame:
            case Ready():
                self._ready(seat, frame)
            case Touched(key, index):
                if slot_of(key, index) in seat.sent:
                    seat.touched[slot_of(key, index)] = asyncio.get_running_loop().time()
            case Interrupted(key, index):
                if slot_of(key, index) in seat.sent:
                    seat.told.add(slot_of(key, index))
            case Started(key, index):
                self._node.on_started(key, index)
            case Said():
                self._node.on_said(frame)
            case Reported(number):
                self._reports.made(number)
            case Broken(error, traceback):
                seat.broken = f"{error[:ERROR_CHARS_MAX]}\n{traceback[:TRACEBACK_CHARS_MAX]}".rstrip()
            case Dropped():
                if seat.state is State.DROPPING:
                    seat.state = State.READY
                    self._dispatch.refill(seat)
            case Starved():
                if seat.state is State.READY:
                    seat.fault = "a job read from files of its runner"
                    self._staff.kill(seat)

    def _ready(self, seat: Seat, ready: Ready) -> None:
        if seat.state is State.STARTING:
            self._code.tasks = {info.name: info for info in ready.tasks}
            self._code.queues = {info.name: info for info in ready.queues}
            self._staff.is_up(seat)
            self._reports.flush()
            self._dispatch.refill(seat)
