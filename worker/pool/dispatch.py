"""Which job goes to which runner, and when: what waits is sent a little ahead of what runs, and taken back from where
it is stuck."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rota.client.model import Mode

from ..channel.frames import Work
from ..channel.job_numbers import job_number
from .ready import AHEAD_BYTES_MAX, AHEAD_JOBS_MIN, AHEAD_S, Job, Pace, Waiting
from .runner_handle import Role, RunnerHandle, State
from .spares import Spares
from .staff import PoolConfig, Staff
from .suspects import Sent, Suspects
from .time_limits import TimeLimits
from .wear import Wear

TICK_S = 0.05
STUCK_S = 0.05
"""What an async runner was sent ahead comes back if it has begun nothing for so long."""
EVENS_S = 0.02
"""What was taken back from one event loop, to be spread over all of them, waits so long until that has forgotten it."""
APART: tuple[Mode, Role] = ("async", "apart")
APART_MAX = 4
"""Runners for suspects at a time, each with one of them."""
APART_PATIENCE_S = 2.0
"""While suspects wait, one more such runner is started whenever all have been busy for so long."""


class Ticker:
    """Ticks once, a moment after it was woken."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._tick: Callable[[], None] | None = None

    def start(self, tick: Callable[[], None]) -> None:
        self._tick = tick

    def wake(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._ticked)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _ticked(self) -> None:
        self._timer = None
        assert self._tick is not None
        self._tick()


class Dispatch:
    """Of one pool. `waiting` and `suspects` are what it takes from, the runners of `staff` are what it gives to."""

    def __init__(
        self, config: PoolConfig, staff: Staff, waiting: Waiting, suspects: Suspects, limits: TimeLimits,
        ticker: Ticker, capacity: dict[Mode, int],
    ) -> None:
        self.suspects = suspects
        self.spares = Spares(staff, config.spare_runners, capacity)
        self.wear = Wear(config.jobs_per_runner_max, config.runner_bytes_max)
        self.pace = Pace()
        self._config = config
        self._staff = staff
        self._waiting = waiting
        self._limits = limits
        self._ticker = ticker
        self._apart_since = 0.0         # since when there are so many runners for suspects
        self._evens: tuple[RunnerHandle, float] | None = None       # from whom it was taken; until when it waits

    def take_back(self, runner: RunnerHandle) -> None:
        """To the head of the queue, where it came from."""
        self.put_back(runner, runner.take_back())
        if runner.fault:
            self._staff.kill(runner)

    def put_back(self, runner: RunnerHandle, sent: list[Sent]) -> None:
        if runner.role != "apart":
            self._waiting[runner.kind].put_back(sent)
            return
        for work, (index, _) in sent:
            self.suspects.untake(job_number(work.key, index))

    def fill(self, mode: Mode) -> None:
        if not self._waiting[mode]:
            return
        runners = self._staff.of(mode)
        if mode == "async" and self._staff.wanted[mode, "regular"] > 1:
            self._spread(runners)
            return
        if len(runners) > 1:
            runners.sort(key=lambda runner: len(runner.sent))
        for runner in runners:
            self._fill_runner(runner)

    def _fill_runner(self, runner: RunnerHandle) -> None:
        queue = self._waiting[runner.kind]
        while queue and runner.state is State.READY:
            work = queue.first()
            room = self._room(runner, work)
            if room <= 0:
                break
            self._send(runner, work, queue.take(room))

    def _spread(self, runners: list[RunnerHandle]) -> None:
        """Over several event loops: each time to the one that has the least, and no more of a bundle than its share."""
        queue = self._waiting["async"]
        if self._evens is not None:
            giver, until = self._evens
            if giver.state is State.DROPPING and asyncio.get_running_loop().time() < until:
                return
            self._evens = None
        while queue and runners:
            work = queue.first()
            room = self._room(runners[0], work)
            share = -(-min(queue.first_size(), room) // len(runners))
            while queue and queue.first() is work:
                if room <= 0:
                    return
                count = min(room, share)
                self._send(min(runners, key=lambda runner: len(runner.sent)), work, queue.take(count))
                room -= count

    def _fill_apart(self) -> None:
        """One suspect a runner; runners that none is left for go."""
        for runner in self._staff.of("async", "apart"):
            if runner.sent:
                continue
            sent = self.suspects.take()
            if sent is not None:
                self._send(runner, sent[0], [sent[1]])
            else:
                self._staff.wanted[APART] -= 1
                self._staff.dismiss(runner)

    def refill(self, runner: RunnerHandle) -> None:
        if runner.role == "regular" and self.wear.has_done_enough(runner):
            self.replace(runner)
        if runner.leaving:
            if not runner.sent and runner.state in (State.READY, State.DROPPING):
                self._staff.dismiss(runner)
        elif runner.role == "apart":
            self._fill_apart()
        elif runner.role == "spare":
            self.lend(asyncio.get_running_loop().time())
        elif runner.kind == "async":
            self.fill("async")
        else:
            self._fill_runner(runner)

    def replace(self, runner: RunnerHandle) -> None:
        if self._staff.retire(runner):
            self.take_back(runner)
            self.fill(runner.kind)

    def _send(self, runner: RunnerHandle, work: Work, jobs: list[Job], *, spare: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        runner.send(work, jobs, now, spare=spare)
        self._limits.expect(runner, work, jobs, now)
        self._ticker.wake()

    def _room(self, runner: RunnerHandle, work: Work) -> int:
        if runner.kind == "async":
            return self._room_async(runner, work)
        if runner.bytes_ahead >= AHEAD_BYTES_MAX:
            return AHEAD_JOBS_MIN - len(runner.sent)
        return self.pace.ahead(work.task) - len(runner.sent)

    def _room_async(self, runner: RunnerHandle, work: Work) -> int:
        """All of them share the node's capacity. One that has it for itself keeps to it by itself, and may have more
        ahead; but not jobs with a time limit: it is counted from when they are sent."""
        capacity = self._config.async_capacity
        others = self._staff.of("async", state=None)
        room = capacity - sum(len(other.sent) for other in others)
        is_alone = others == [runner] and runner.bytes_ahead < AHEAD_BYTES_MAX
        if not is_alone or self._limits.timeout_s(work) is not None:
            return room
        return room + self.pace.ahead_async(work.task, capacity)

    def _come_back(self, now: float) -> None:
        """What async runners were sent ahead, and do not begin."""
        for runner in self._staff.of("async"):
            if len(runner.sent) > self._config.async_capacity and runner.waiting() and not runner.begins(now, STUCK_S):
                for task in {work.task for work, _ in runner.sent.values()}:
                    self.pace.forget(task)
                self.take_back(runner)

    def steal(self, now: float) -> None:
        """What waits behind a job that takes long, or on a loop that does not turn, goes to a runner that has room."""
        runners = self._staff.of("sync")
        if not self._waiting["sync"] and any(not runner.sent for runner in runners):
            for runner in runners:
                if len(runner.sent) > 1 and now - runner.head_since > AHEAD_S:
                    self.take_back(runner)
            self.fill("sync")
        self._come_back(now)
        if self._staff.wanted["async", "regular"] > 1:
            for runner in self._staff.of("async"):
                if runner.waiting() and not runner.begins(now):
                    self.take_back(runner)
            self._even_out(now)
            self.fill("async")

    def _even_out(self, now: float) -> None:
        """One of several event loops has nothing, and all that is left lies before another: it is spread anew."""
        runners = self._staff.of("async")
        if self._waiting["async"] or all(runner.sent for runner in runners):
            return
        most = max(runners, key=RunnerHandle.waiting)
        if most.waiting() > 1:
            self._evens = most, now + EVENS_S
            self.take_back(most)

    def lend(self, now: float) -> None:
        """To queues of which nothing runs, while every slot is taken by jobs that take long."""
        if not self._config.spare_runners:
            return
        if self.spares.is_stuck(now):
            for runner in self._staff.of("sync"):
                if len(runner.sent) > 1:      # given ahead
                    self.take_back(runner)
            for spare, sent in self.spares.lend("sync", self._waiting["sync"], now):
                self._send(spare, sent[0], [sent[1]])
        for runner, sent in self.spares.lend("async", self._waiting["async"], now):
            self._send(runner, sent[0], [sent[1]], spare=True)

    def hurry_suspects(self, now: float) -> None:
        if not self.suspects.waiting or self._staff.wanted[APART] >= APART_MAX:
            return
        if now - self._apart_since < APART_PATIENCE_S:
            return
        self._staff.wanted[APART] += 1
        self._apart_since = now
        self._staff.maintain()

    def summon(self) -> None:
        """Let there be a runner for suspects."""
        if not self._staff.wanted[APART]:
            self._staff.wanted[APART], self._apart_since = 1, asyncio.get_running_loop().time()
        self._fill_apart()
