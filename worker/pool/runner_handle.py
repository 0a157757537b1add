"""The node's side of one runner process: what was sent to it, what of that it has started, how it ended.

A handle decides nothing; `rota.worker.pool.runners` does.
"""

from __future__ import annotations

import enum
import heapq
import os
import signal
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Literal

import msgspec

from rota.client.model import DURATION_S_MAX, Mode, Outcome

from ..channel import start_permits as permits
from ..channel.channel import BadFrame, LoopEnd
from ..channel.frames import (
    EXIT_CHANNEL,
    FUNCTIONS_MAX,
    Cancel,
    Drop,
    FromRunner,
    Function,
    Question,
    Reply,
    Report,
    Run,
    Stop,
    StopAsked,
    Work,
)
from ..channel.job_numbers import INDEX_BITS, job_number
from ..channel.outcomes import ERROR_CHARS_MAX, NONE_PICKLED, checked, returned_none
from ..channel.tally import HOLD_S, TallyReader
from ..guard.guardlink import Descriptors
from .output import Output
from .ready import Job

REST_S_MAX = 0.004
"""While more outcomes are on their way reading rests for a part of the work that was sent ahead, at most so long, and
no less than a runner may keep to itself what it has noted."""

PATIENCE_S = 0.5
"""An async runner that has begun no job for so long, though it has some to begin, is blocked by one that runs."""
LOOK_S = 0.02


Role = Literal["regular", "apart", "spare"]
"""What a runner is there for: the node's work, one suspect at a time (see `suspects`), or one job at a time of a queue
of which nothing runs (see `spares`)."""


class State(enum.Enum):
    STARTING = "starting"
    READY = "ready"
    DROPPING = "dropping"       # jobs were taken back; nothing is sent until it says that it has forgotten them
    STOPPING = "stopping"       # asked to run its stop hooks and go
    DYING = "dying"             # killed, or its channel is lost; the guard will say when it is reaped


class RunnerHandle:
    def __init__(self, number: int, kind: Mode, born: float, *, role: Role = "regular") -> None:
        self.number = number
        self.role: Role = role
        self.pid = 0
        self.kind: Mode = kind
        self.state = State.STARTING
        self.was_ready = False
        self.broken = ""                            # why it could not start
        self.fault = ""                             # what was wrong with its channel
        self.doomed: dict[int, Outcome] = {}        # what becomes of jobs if it is killed for them
        self.killed_for_job = False
        self.blocked = False                        # it was killed because its loop did not turn
        self.ended = 0                              # jobs
        self.leaving = False                        # it goes when it has nothing to do
        self.sent: dict[int, tuple[Work, Job]] = {}     # by job number, in the order sent, until the outcome is here
        self.bytes_ahead = 0
        self.head_since = 0.0                       # when the first of `sent` began, as far as can be known
        self.took_s = 0.0                           # one job, lately; 0 where that is not known
        self.touched: dict[int, float] = {}         # number -> when its job restarted its clock
        self.told_to_end: set[int] = set()                 # jobs of an async runner that were told to end
        self._deadlines: list[tuple[float, int]] = []
        self._functions: dict[bytes, int] = {}
        self._function_number = 0
        self._channel: LoopEnd[FromRunner] | None = None
        self._questions: LoopEnd[Question] | None = None
        self._output: Output | None = None
        self._tally: TallyReader | None = None
        self._said = -1                             # the job that ended last by a frame
        self._look: Callable[[RunnerHandle], float] = lambda runner: 0.0
        self.permits = -1
        self._sent_ever = 0                         # less what was taken back
        self._begun = 0                             # of these, when it was last looked
        self._looked_at = self._begun_at = born

    def connect(
        self, descriptors: Descriptors, *,
        on_frames: Callable[[RunnerHandle, list[FromRunner]], float],
        on_questions: Callable[[RunnerHandle, list[Question]], float],
        on_lost: Callable[[RunnerHandle], None],
        look: Callable[[RunnerHandle], float],
    ) -> None:
        def lost(bad: BadFrame | None) -> None:
            self.fault = self.fault or ("" if bad is None else f"it garbled its channel: {bad}")
            on_lost(self)

        self._look = look
        self.permits = descriptors.permits
        self._tally = TallyReader(descriptors.tally)
        self._output = Output(descriptors.output)
        self._channel = LoopEnd(
            descriptors.channel, FromRunner, on_lost=lost,
            on_frames=lambda frames: on_frames(self, frames), look=lambda: look(self),
        )
        self._questions = LoopEnd(
            descriptors.questions, Question, on_lost=lost, on_frames=lambda frames: on_questions(self, frames)
        )

    def send(self, work: Work, jobs: list[Job], now: float, *, spare: bool = False) -> None:
        """Jobs of one work, after what was sent before. `spare`: they have places of their own."""
        assert self._channel is not None
        if not self.sent:
            self.head_since = now
        base = work.key << INDEX_BITS
        self.sent.update({base | job[0]: (work, job) for job in jobs})
        self.bytes_ahead += sum([len(payload) for _, payload in jobs])
        if self._sent_ever == self._begun:
            self._begun_at = now
        self._sent_ever += len(jobs)
        permits.grant(self.permits, len(jobs))     # before the jobs: a runner that finds none knows it must forget
        self._post(Run(_part(work, jobs), self._function(work), spare))

    def settle(self, outcomes: list[tuple[int, Outcome]]) -> list[tuple[int, Outcome]]:
        """Outcomes have come: those of jobs that were sent, and not forgotten meanwhile; each held to its bounds."""
        pop, touched, told_to_end, known = self.sent.pop, self.touched, self.told_to_end, []
        for item in outcomes:
            number = item[0] << INDEX_BITS | item[1].index
            sent = pop(number, None)
            if touched:
                touched.pop(number, None)
            if told_to_end:
                told_to_end.discard(number)
            if sent is not None:
                self.bytes_ahead -= len(sent[1][1])
                outcome = checked(item[1])
                known.append(item if outcome is item[1] else (item[0], outcome))
        self.ended += len(known)
        return known

    def settle_in_order(self, outcomes: list[tuple[int, Outcome]]) -> list[tuple[int, Outcome]]:
        """`settle`, of a runner of plain functions: they end as they were sent, and what it has noted comes between
        what it says."""
        known = self._settle_noted()
        for item in outcomes:
            number = item[0] << INDEX_BITS | item[1].index
            if number in self.sent:
                if number != next(iter(self.sent)):
                    self.fault = "a job reported the end of another one"
                    break
                known += self.settle([item])
                self._said = number
                known += self._settle_noted()
        if known and self._output is not None:
            self._output.forget()
        return known

    def _settle_noted(self) -> list[tuple[int, Outcome]]:
        """Up to a job whose outcome comes in a frame that is not here yet."""
        try:
            numbers, ran = self._tally.new() if self._tally is not None else ([], [])
        except ValueError as error:
            self.fault, numbers, ran = f"a job wrote to memory of its runner: {error}", [], []
        if not numbers:
            return []
        sent, known, size = self.sent, [], 0
        if list(islice(sent, len(numbers))) != numbers:
            numbers = self._noted_next(numbers)
        for number, ran_s in zip(numbers, ran, strict=False):
            found = sent.pop(number, None)
            if found is not None:
                work, (index, payload) = found
                size += len(payload)
                outcome = Outcome(index, "ok", NONE_PICKLED, "", "", 0.0, "pickle", ran_s)  # in order: names would cost
                known.append((work.key, outcome if 0.0 <= ran_s <= DURATION_S_MAX else checked(outcome)))
        if self.touched:
            for number in numbers:
                self.touched.pop(number, None)
        assert self._tally is not None
        self._tally.taken(len(numbers))
        self.bytes_ahead -= size
        self.ended += len(known)
        return known

    def _noted_next(self, numbers: list[int]) -> list[int]:
        """What of this comes next. What it was not sent was not noted: it is not to be seen yet (on processors that
        order what one of them writes less strictly), or all was forgotten, or a job has said itself how it ends."""
        if not self.sent:
            return numbers
        heads = iter(list(islice(self.sent, len(numbers))))
        head = next(heads, None)
        for at, number in enumerate(numbers):
            if number == head:
                head = next(heads, None)
            elif number != self._said:      # perhaps the outcome of one before it is on its way
                return numbers[:at]
        return numbers

    def settle_well(self, jobs: list[tuple[int, list[int], list[float]]]) -> list[tuple[int, Outcome]]:
        """`settle`, of what a `Well` stands for: in one go where there is nothing to look at but the numbers."""
        if self.touched or self.told_to_end:
            return self.settle(returned_none(jobs))
        pop, known, size = self.sent.pop, [], 0
        for key, indexes, ran in jobs:
            base = key << INDEX_BITS
            for index, ran_s in zip(indexes, ran, strict=False):
                sent = pop(base | index, None)
                if sent is not None:
                    size += len(sent[1][1])
                    outcome = Outcome(index, "ok", NONE_PICKLED, "", "", 0.0, "pickle", ran_s)
                    known.append((key, outcome if 0.0 <= ran_s <= DURATION_S_MAX else checked(outcome)))
        self.bytes_ahead -= size
        self.ended += len(known)
        return known

    def rest_s(self) -> float:
        """How long it is before it is worth to hear of it again; 0: it has nothing to do."""
        if not self.sent:
            return 0.0
        if self.took_s >= HOLD_S:
            return HOLD_S
        return max(HOLD_S, min(REST_S_MAX, len(self.sent) * self.took_s / 4))

    def head(self) -> tuple[int, Work] | None:
        """The first job whose outcome is not here: in a sync runner, the one that runs."""
        for number, (work, _) in self.sent.items():
            return number, work
        return None

    def has_any(self, keys: set[int]) -> bool:
        """Whether jobs of one of these works were sent and have no outcome yet."""
        if len(keys) << INDEX_BITS > len(self.sent):
            return any(work.key in keys for work, _ in self.sent.values())
        return any(job_number(key, index) in self.sent for key in keys for index in range(1 << INDEX_BITS))

    def take_back(self) -> list[tuple[Work, Job]]:
        """Take back what has not been started, in order. Nothing can be sent until the runner has forgotten it."""
        if not self.sent or self.permits < 0:
            return []
        count = permits.take_back(self.permits, len(self.sent))
        if count > len(self.sent):
            self.fault = "a job wrote to files of its runner"
            return []
        if not count:
            return []
        self._sent_ever -= count
        if self.state is State.READY:
            self.state = State.DROPPING
            self._post(Drop())
        taken = [self.sent.pop(number) for number in list(self.sent)[-count:]]
        self.bytes_ahead -= sum(len(job[1]) for _, job in taken)
        return taken

    def started(self) -> list[int]:
        """The numbers of jobs that have been started and have no outcome yet."""
        numbers = list(self.sent)
        waiting = permits.left(self.permits) if numbers and self.permits >= 0 else 0
        if waiting is None or waiting > len(numbers):
            return numbers[:1] if self.kind == "sync" else numbers
        return numbers[: len(numbers) - waiting]

    def waiting(self) -> int:
        """How many of the jobs sent have not been started."""
        return permits.left(self.permits) or 0 if self.sent and self.permits >= 0 else 0

    def begins(self, now: float, patience_s: float = PATIENCE_S) -> bool:
        """Whether it is beginning what it was sent: what is left then needs no other runner, only a moment."""
        if now >= self._looked_at + LOOK_S and self.permits >= 0:
            begun = self._sent_ever - (permits.left(self.permits) or 0)
            if begun > self._begun:
                self._begun_at = now
            self._looked_at, self._begun = now, begun
        return self._begun < self._sent_ever and now < self._begun_at + patience_s

    def cancel(self, key: int, index: int) -> None:
        """Ask a job that was sent to stop. A plain function has to look for it, on the channel that is not busy."""
        if self.kind == "async":
            self._post(Cancel(key, index))
        elif self._questions is not None:
            self._questions.send(StopAsked(key, index))

    def read_now(self) -> None:
        """What it has sent may wait in the socket, if it was this process that was stopped for a while."""
        if self._channel is not None:
            self._channel.drain()
            self._look(self)

    def has(self, key: int, index: int) -> bool:
        """Whether it was sent this job, and has not told how it ended."""
        return job_number(key, index) in self.sent

    def answer(self, reply: Reply) -> None:
        """To what one of its jobs asked."""
        if self._questions is not None:
            self._questions.send(reply)

    def report(self, report: Report) -> None:
        self._post(report)

    def stop(self) -> None:
        self.state = State.STOPPING
        self._post(Stop())

    def expect(self, number: int, deadline: float) -> None:
        """This job must be over by then."""
        heapq.heappush(self._deadlines, (deadline, number))
        if len(self._deadlines) > 2 * len(self.sent) + 1_000:       # most of them are over
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self.sent]
            heapq.heapify(self._deadlines)

    def overdue(self, now: float) -> Iterator[int]:
        while self._deadlines and self._deadlines[0][0] <= now:
            number = heapq.heappop(self._deadlines)[1]
            if number in self.sent:
                yield number

    def autopsy(self) -> tuple[list[tuple[Work, Job]], list[tuple[Work, Job]]]:
        """The process is reaped. Read what it left behind and close; (started without an outcome, never started)."""
        if self._channel is not None:
            self.read_now()
            self._channel.close()
        if self._questions is not None:
            self._questions.close()
        if self._output is not None:
            self._output.close()
        waiting = self.take_back()
        if self.fault and self.kind == "sync" and not waiting:      # nobody knows; it did one thing after another
            waiting = [self.sent.pop(number) for number in list(self.sent)[1:]]
        if self.permits >= 0:
            os.close(self.permits)
            self.permits = -1
        return list(self.sent.values()), waiting

    def epitaph(self, status: int) -> str:
        """Why a job that ran in it has no outcome of its own: what is known of its fault, its exit status or signal,
        and its last words."""
        words = self._output.last_words() if self._output is not None else ""
        text = f"runner died {self._how(status)}" + (f"; its last words: {words}" if words else "")
        return text if len(text) <= ERROR_CHARS_MAX else text[: ERROR_CHARS_MAX - 1] + "…"

    def _how(self, status: int) -> str:
        if self.fault:
            return f"({self.fault})"
        if self.broken:
            return f"({self.broken.splitlines()[0]})"
        if status < 0:
            return f"(signal {-status}, {_signal_name(-status)})"
        if status == EXIT_CHANNEL:
            return "(its channel to the node was closed or garbled)"
        return f"(exit status {status})"

    def _function(self, work: Work) -> int:
        """The number under which this runner knows the work's code; sent once."""
        if work.function is None:
            return 0
        number = self._functions.get(work.function, 0)
        if not number:
            if len(self._functions) >= FUNCTIONS_MAX:
                self._functions.clear()
            self._function_number += 1
            number = self._functions[work.function] = self._function_number
            self._post(Function(number, work.function))
        return number

    def _post(self, frame: msgspec.Struct) -> None:
        if self._channel is not None:
            self._channel.send(frame)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "a real-time one"


def _part(work: Work, jobs: list[Job]) -> Work:
    return Work(
        work.key, work.bundle, work.task, work.queue, work.mode, work.attempt, work.fence, work.enqueued_at,
        work.codec, jobs, None, work.options, work.report_start, work.expires_ms, work.inputs,
        work.flow, work.takeovers,
    )  # fmt: skip
