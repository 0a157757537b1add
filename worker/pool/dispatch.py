"""Which job goes to which runner, and when: what waits is sent a little ahead of what runs, and taken back from where
it is stuck."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rota.client.model import Mode

from ..channel.frames import Work
from ..channel.slots import slot_of
from .ready import AHEAD_BYTES_MAX, AHEAD_JOBS_MIN, AHEAD_S, Job, Pace, Waiting
from .seat import Role, Seat, State
from .spares import Spares
from .staff import PoolConfig, Staff
from .suspects import Sent, Suspects
from .time_limits import TimeLimits
from .wear import Wear

TICK_S = 0.05
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
    """Of one pool. `waiting` and `suspects` are what it takes from, the seats of `staff` are what it gives to."""

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

    def take_back(self, seat: Seat) -> None:
        """To the head of the queue, where it came from."""
        self.put_back(seat, seat.take_back())
        if seat.fault:
            self._staff.kill(seat)

    def put_back(self, seat: Seat, sent: list[Sent]) -> None:
        if seat.role != "apart":
            self._waiting[seat.kind].put_back(sent)
            return
        for work, (index, _) in sent:
            self.suspects.untake(slot_of(work.key, index))

    def fill(self, mode: Mode) -> None:
        if not self._waiting[mode]:
            return
        seats = self._staff.of(mode)
        if mode == "async" and self._staff.wanted[mode, "regular"] > 1:
            self._spread(seats)
            return
        if len(seats) > 1:
            seats.sort(key=lambda seat: len(seat.sent))
        for seat in seats:
            self._fill_seat(seat)

    def _fill_seat(self, seat: Seat) -> None:
        queue = self._waiting[seat.kind]
        while queue and seat.state is State.READY:
            work = queue.first()
            room = self._room(seat, work.task)
            if room <= 0:
                break
            self._send(seat, work, queue.take(room))

    def _spread(self, seats: list[Seat]) -> None:
        """Over several event loops: each time to the one that has the least, and no more of a bundle than its share."""
        queue = self._waiting["async"]
        while queue and seats:
            work, room = queue.first(), self._room(seats[0], "")
            share = -(-min(queue.first_size(), room) // len(seats))
            while queue and queue.first() is work:
                if room <= 0:
                    return
                count = min(room, share)
                self._send(min(seats, key=lambda seat: len(seat.sent)), work, queue.take(count))
                room -= count

    def _fill_apart(self) -> None:
        """One suspect a runner; runners that none is left for go."""
        for seat in self._staff.of("async", "apart"):
            if seat.sent:
                continue
            sent = self.suspects.take()
            if sent is not None:
                self._send(seat, sent[0], [sent[1]])
            else:
                self._staff.wanted[APART] -= 1
                self._staff.dismiss(seat)

    def refill(self, seat: Seat) -> None:
        if seat.role == "regular" and self.wear.has_done_enough(seat):
            self.replace(seat)
        if seat.leaving:
            if not seat.sent and seat.state in (State.READY, State.DROPPING):
                self._staff.dismiss(seat)
        elif seat.role == "apart":
            self._fill_apart()
        elif seat.role == "spare":
            self.lend(asyncio.get_running_loop().time())
        elif seat.kind == "async":
            self.fill("async")
        else:
            self._fill_seat(seat)

    def replace(self, seat: Seat) -> None:
        if self._staff.retire(seat):
            self.take_back(seat)
            self.fill(seat.kind)

    def _send(self, seat: Seat, work: Work, jobs: list[Job]) -> None:
        now = asyncio.get_running_loop().time()
        seat.send(work, jobs, now)
        self._limits.expect(seat, work, jobs, now)
        self._ticker.wake()

    def _room(self, seat: Seat, task: str) -> int:
        if seat.kind == "async":
            return self._config.async_capacity - sum(
                len(seat.sent) for seat in self._staff.seats.values() if seat.kind == "async" and seat.role == "regular"
            )
        if seat.bytes_ahead >= AHEAD_BYTES_MAX:
            return AHEAD_JOBS_MIN - len(seat.sent)
        return self.pace.ahead(task) - len(seat.sent)

    def steal(self, now: float) -> None:
        """What waits behind a job that takes long, or on a loop that does not turn, goes to a runner that has room."""
        seats = self._staff.of("sync")
        if not self._waiting["sync"] and any(not seat.sent for seat in seats):
            for seat in seats:
                if len(seat.sent) > 1 and now - seat.head_since > AHEAD_S:
                    self.take_back(seat)
            self.fill("sync")
        if self._staff.wanted["async", "regular"] > 1:
            for seat in self._staff.of("async"):
                if seat.waiting() and not seat.begins(now):
                    self.take_back(seat)
            self.fill("async")

    def lend(self, now: float) -> None:
        """To queues of which nothing runs, while every slot is taken by jobs that take long."""
        if not self._config.spare_runners:
            return
        if self.spares.is_stuck(now):
            for seat in self._staff.of("sync"):
                if len(seat.sent) > 1:      # given ahead
                    self.take_back(seat)
            for spare, sent in self.spares.lend("sync", self._waiting["sync"], now):
                self._send(spare, sent[0], [sent[1]])
        for seat, sent in self.spares.lend("async", self._waiting["async"], now):
            self._send(seat, sent[0], [sent[1]])

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
