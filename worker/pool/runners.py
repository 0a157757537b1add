"""The runners of a node: who runs what, what becomes of it when a runner dies.

`interface` is the seam (the simulation has a scripted one), `RunnerPool` the real thing: N runners of plain functions,
and one or more of `async def` jobs, started by the guard. Work waits in one queue per mode and goes to runners a little
ahead of what they run; what was not started can be taken back at any moment (see `rota.worker.channel.permits`), so
nothing is stuck behind a job that takes long.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from rota.client.errors import ConfigError
from rota.client.model import Mode, Outcome, QueueInfo, TaskInfo

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
    Work,
)
from ..channel.outcomes import ERROR_CHARS_MAX, TRACEBACK_CHARS_MAX
from ..channel.slots import job_of, slot_of
from ..guard.guardlink import Descriptors, GuardLink
from .inquest import Inquest
from .interface import NodeSide
from .limits import Limits, Overdue
from .questions import Questions
from .ready import AHEAD_BYTES_MAX, AHEAD_JOBS_MIN, AHEAD_S, Job, Pace, ReadyQueue
from .reports import Reports
from .seat import Role, Seat, State
from .spares import Spares
from .staff import STOP_HOOKS_S, PoolConfig, Staff
from .suspects import Sent, Suspects
from .wear import Wear

log = logging.getLogger(__name__)

TICK_S = 0.05
APART_MAX = 4
"""Runners for suspects at a time, each with one of them."""
APART_PATIENCE_S = 2.0
"""While suspects wait, one more such runner is started whenever all have been busy for so long."""


class RunnerPool:
    """All methods belong to one event loop.

    A job whose runner died because of it gets its outcome from its task's retry options. What its runner had not begun,
    and what ran beside it, runs again; so it is with jobs of a runner that died of nobody knows whom (see `suspects`).
    What ends because of the lease, `kill_all` or the end of `stop`'s grace has no outcome.
    """

    def __init__(self, config: PoolConfig, guard: GuardLink) -> None:
        self.config = config
        self.tasks: dict[str, TaskInfo] = {}
        self.queues: dict[str, QueueInfo] = {}
        self.capacity: dict[Mode, int] = {"async": config.async_capacity, "sync": config.sync_runners}
        self.spare: dict[Mode, int] = {
            mode: config.spare_runners for mode, capacity in self.capacity.items() if capacity
        }
        self._guard = guard
        self._regular: dict[Mode, int] = {
            "sync": config.sync_runners, "async": min(config.async_processes, config.async_capacity)
        }
        self._staff = Staff(config, guard, self._wanted)
        self._wear = Wear(config.jobs_per_runner_max, config.runner_bytes_max)
        self._spares = Spares(self._staff, config.spare_runners, self.capacity)
        self._queues: dict[Mode, ReadyQueue] = {"sync": ReadyQueue(), "async": ReadyQueue()}
        self._pace = Pace()
        self._limits = Limits(lambda task: self.tasks.get(task))
        self._reports = Reports(lambda: list(self._seats.values()), lambda: self._loop.time())
        self._inquest = Inquest(
            lambda task: self.tasks.get(task), lambda kind, sent: self._queues[kind].put_back(sent), self._reports.add
        )
        self._suspects = self._inquest.suspects
        self._apart = 0                 # runners for suspects
        self._apart_since = 0.0         # since when that many
        self._tick_timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._questions: Questions | None = None

    @property
    def trouble(self) -> str | None:
        """Why there are no runners (the app cannot be imported any more), or None."""
        return self._staff.trouble

    @property
    def _seats(self) -> dict[int, Seat]:
        return self._staff.seats

    def _wanted(self, kind: Mode, role: Role) -> int:
        if role == "regular":
            return self._regular[kind]
        return self._apart if role == "apart" else self._spares.wanted

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self, node: NodeSide) -> None:
        """Start all runners; returns when they have imported the app. Raises `ConfigError` if they cannot."""
        self._loop = asyncio.get_running_loop()
        self._node = node
        self._questions = Questions(node)
        self._guard.open(self)
        try:
            async with asyncio.timeout(self.config.start_timeout_s):
                await self._staff.open()
        except TimeoutError:
            await self.kill_all()
            raise ConfigError(
                f"the runners have not started within {self.config.start_timeout_s:g} s: what do "
                f"{', '.join(self.config.apps) or 'the start hooks'} wait for while they are imported? If they need "
                "longer, say so with --start-timeout"
            ) from None
        except ConfigError:
            await self.kill_all()
            raise

    async def stop(self, grace_s: float) -> None:
        """End in good order: what runs may go on for `grace_s`, what waits is forgotten, so withdraw it first."""
        self._staff.stopping = True
        self.withdraw(None)
        await self._until(lambda: not any(seat.sent for seat in self._seats.values()), grace_s)
        for seat in self._seats.values():
            if seat.state in (State.READY, State.DROPPING) and not seat.sent:
                seat.stop()
            elif seat.state is not State.STOPPING:
                seat.sent.clear()
                self._staff.kill(seat)
        await self._until(lambda: not self._seats, STOP_HOOKS_S)
        await self.kill_all()
        if self._questions is not None:
            self._questions.close()
        if self._tick_timer is not None:
            self._tick_timer.cancel()

    async def kill_all(self) -> None:
        """Forget all work, kill all runners; they are reaped when it returns. The next `lease` starts new ones."""
        self._halt()
        dying = set(self._seats)
        for number in dying:
            self._staff.kill(self._seats[number])
        await self._until(lambda: not dying & self._seats.keys())

    def lease(self, lease_id: int, deadline_boottime: float) -> None:
        self._guard.lease(lease_id, deadline_boottime)
        self._staff.resume()

    def no_lease(self) -> None:
        self._guard.no_lease()

    def _halt(self) -> None:
        for queue in self._queues.values():
            queue.clear()
        self._suspects.clear()
        self._apart = self._spares.wanted = 0
        self._staff.halt()

    async def _until(self, condition: Callable[[], bool], timeout_s: float | None = None) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass

    # -- work --------------------------------------------------------------------------------------------------------

    def submit(self, work: Work) -> None:
        """Queue it; never blocks."""
        self._queues[work.mode].add(work)
        self._fill(work.mode)

    def withdraw(self, keys: Iterable[int] | None) -> list[tuple[int, list[int]]]:
        """Give back what has not been started, of these works or of all: (key, indexes)."""
        wanted = None if keys is None else set(keys)
        for seat in list(self._seats.values()):
            if wanted is None or seat.has_any(wanted):
                self._take_back(seat)
        given: dict[int, list[int]] = {}
        places: list[ReadyQueue | Suspects] = [*self._queues.values(), self._suspects]
        for place in places:
            for key, indexes in place.withdraw(wanted).items():
                given.setdefault(key, []).extend(indexes)
        return list(given.items())

    def cancel(self, key: int, index: int) -> None:
        """End one job as cancelled, wherever it is. One that runs has a grace time, in which it may still choose to end
        in another way."""
        slot = slot_of(key, index)
        seat = next((seat for seat in self._seats.values() if slot in seat.sent), None)
        if seat is not None and seat.kind == "sync":
            self._take_back(seat)           # perhaps it has not begun
        if seat is not None and slot in seat.sent:
            seat.cancel(key, index)
            seat.doomed.setdefault(slot, Outcome(index, "cancelled", error="cancelled"))
            seat.expect(slot, self._loop.time() + self._limits.grace_s(seat.sent[slot][0]))
            return
        if any(queue.remove(key, index) for queue in self._queues.values()) or self._suspects.remove(slot):
            self._loop.call_soon(self._node.on_outcomes, [(key, Outcome(index, "cancelled", error="cancelled"))])

    def running(self) -> list[tuple[int, int]]:
        """(key, index) of each job that has been started."""
        return [job_of(slot) for seat in self._seats.values() for slot in seat.started()]

    def report(self, work: Work, index: int, error: str) -> None:
        """A job has failed for good elsewhere: have the application's error hooks called."""
        self._reports.add(work, index, error)

    @property
    def stand(self) -> bool:
        """Whether a runner is there that has imported the app (or none is wanted)."""
        there = any(seat.was_ready and seat.state is not State.DYING for seat in self._seats.values())
        return there or not any(self._regular.values())

    def keeps(self, key: int) -> bool:
        """Whether jobs of this work are suspects: elsewhere they would run among others again."""
        return self._suspects.has(key)

    def begins(self, mode: Mode) -> bool:
        """Whether there is a slot for each job that waits here, and jobs are being begun: it is no use to take them
        back. Jobs of plain functions begin one after the other, so for them it is not so."""
        if mode == "sync" or self._queues[mode]:
            return False
        return any(seat.begins(self._loop.time()) for seat in self._staff.of(mode, state=None))

    def busy(self, mode: Mode, queue: str) -> bool:
        """Whether every slot that a job of this queue could have is taken by a job that has begun."""
        running = sum(len(seat.started()) for seat in self._staff.of(mode, state=None))
        return running >= self.capacity[mode] and not self._spares.open_to(mode, queue)

    def _take_back(self, seat: Seat) -> None:
        """To the head of the queue, where it came from."""
        self._put_back(seat, seat.take_back())
        if seat.fault:
            self._staff.kill(seat)

    def _put_back(self, seat: Seat, sent: list[Sent]) -> None:
        if seat.role != "apart":
            self._queues[seat.kind].put_back(sent)
            return
        for work, (index, _) in sent:
            self._suspects.untake(slot_of(work.key, index))

    # -- dispatch ----------------------------------------------------------------------------------------------------

    def _fill(self, mode: Mode) -> None:
        if not self._queues[mode]:
            return
        seats = self._staff.of(mode)
        if mode == "async" and self._regular[mode] > 1:
            self._spread(seats)
            return
        if len(seats) > 1:
            seats.sort(key=lambda seat: len(seat.sent))
        for seat in seats:
            self._fill_seat(seat)

    def _fill_seat(self, seat: Seat) -> None:
        queue = self._queues[seat.kind]
        while queue and seat.state is State.READY:
            work = queue.first()
            room = self._room(seat, work.task)
            if room <= 0:
                break
            self._send(seat, work, queue.take(room))

    def _spread(self, seats: list[Seat]) -> None:
        """Over several event loops: each time to the one that has the least, and no more of a bundle than its share."""
        queue = self._queues["async"]
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
            sent = self._suspects.take()
            if sent is not None:
                self._send(seat, sent[0], [sent[1]])
            else:
                self._apart -= 1
                self._staff.dismiss(seat)

    def _refill(self, seat: Seat) -> None:
        if seat.role == "regular" and self._wear.has_done_enough(seat):
            self._replace(seat)
        if seat.leaving:
            if not seat.sent and seat.state in (State.READY, State.DROPPING):
                self._staff.dismiss(seat)
        elif seat.role == "apart":
            self._fill_apart()
        elif seat.role == "spare":
            self._lend(self._loop.time())
        elif seat.kind == "async":
            self._fill("async")
        else:
            self._fill_seat(seat)

    def _replace(self, seat: Seat) -> None:
        if self._staff.retire(seat):
            self._take_back(seat)
            self._fill(seat.kind)

    def _send(self, seat: Seat, work: Work, jobs: list[Job]) -> None:
        now = self._loop.time()
        seat.send(work, jobs, now)
        self._limits.expect(seat, work, jobs, now)
        if self._tick_timer is None:
            self._tick_timer = self._loop.call_later(TICK_S, self._tick)

    def _room(self, seat: Seat, task: str) -> int:
        if seat.kind == "async":
            return self.config.async_capacity - sum(
                len(seat.sent) for seat in self._seats.values() if seat.kind == "async" and seat.role == "regular"
            )
        if seat.bytes_ahead >= AHEAD_BYTES_MAX:
            return AHEAD_JOBS_MIN - len(seat.sent)
        return self._pace.ahead(task) - len(seat.sent)

    def _tick(self) -> None:
        """Twenty times a second while anything runs: what is overdue, and who could help whom."""
        self._tick_timer = None
        now = self._loop.time()
        for seat in list(self._seats.values()):
            if seat.state is not State.DYING and (overdue := self._limits.look(seat, now)) is not None:
                self._end(seat, overdue)
        self._steal(now)
        for seat in self._wear.too_large([*self._staff.of("sync"), *self._staff.of("async")], now):
            self._replace(seat)
            self._refill(seat)
        self._lend(now)
        self._reports.flush()
        self._hurry_suspects(now)
        if self._spares.tidy(now) or self._reports or any(seat.sent for seat in self._seats.values()):
            self._tick_timer = self._loop.call_later(TICK_S, self._tick)

    def _end(self, seat: Seat, overdue: Overdue) -> None:
        """Kill a runner because of a job. If its loop does not turn, that may be another one."""
        if overdue.blocked:
            seat.blocked = True
        else:
            index = job_of(overdue.slot)[1]
            seat.doomed[overdue.slot] = (
                seat.doomed.get(overdue.slot) or self._inquest.ended(overdue.work, index, overdue.error)
            )
        seat.killed_for_job = True
        self._staff.kill(seat)

    def _steal(self, now: float) -> None:
        """What waits behind a job that takes long, or on a loop that does not turn, goes to a runner that has room."""
        seats = self._staff.of("sync")
        if not self._queues["sync"] and any(not seat.sent for seat in seats):
            for seat in seats:
                if len(seat.sent) > 1 and now - seat.head_since > AHEAD_S:
                    self._take_back(seat)
            self._fill("sync")
        if self._regular["async"] > 1:
            for seat in self._staff.of("async"):
                if seat.waiting() and not seat.begins(now):
                    self._take_back(seat)
            self._fill("async")

    def _lend(self, now: float) -> None:
        """To queues of which nothing runs, while every slot is taken by jobs that take long."""
        if not self.config.spare_runners:
            return
        if self._spares.is_stuck(now):
            for seat in self._staff.of("sync"):
                if len(seat.sent) > 1:      # given ahead
                    self._take_back(seat)
            for spare, sent in self._spares.lend("sync", self._queues["sync"], now):
                self._send(spare, sent[0], [sent[1]])
        for seat, sent in self._spares.lend("async", self._queues["async"], now):
            self._send(seat, sent[0], [sent[1]])

    def _hurry_suspects(self, now: float) -> None:
        if not self._suspects.waiting or self._apart >= APART_MAX or now - self._apart_since < APART_PATIENCE_S:
            return
        self._apart += 1
        self._apart_since = now
        self._staff.maintain()

    # -- what runners say --------------------------------------------------------------------------------------------

    def _received(self, seat: Seat, frames: list[FromRunner]) -> bool:
        """A batch from one runner. True if more will come soon."""
        head = seat.head()
        outcomes: list[tuple[int, Outcome]] = []
        for frame in frames:
            if type(frame) is Done:
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
                    self._suspects.ended(slot_of(key, outcome.index))
            self._refill(seat)
            if self._reports:
                self._reports.flush()
            self._node.on_outcomes(outcomes)
            self._changed.set()
        return bool(seat.sent)

    def _learn(self, seat: Seat, task: str, count: int) -> None:
        now = self._loop.time()
        if seat.kind == "sync":
            self._pace.learn(task, (now - seat.head_since) / count)
        seat.head_since = now

    def _heard(self, seat: Seat, frame: FromRunner) -> None:
        match frame:
            case Ready():
                self._ready(seat, frame)
            case Touched(key, index):
                if slot_of(key, index) in seat.sent:
                    seat.touched[slot_of(key, index)] = self._loop.time()
            case Interrupted(key, index):
                if slot_of(key, index) in seat.sent:
                    seat.told.add(slot_of(key, index))
            case Started(key, index):
                self._node.on_started(key, index)
            case Reported(number):
                self._reports.made(number)
            case Broken(error, traceback):
                seat.broken = f"{error[:ERROR_CHARS_MAX]}\n{traceback[:TRACEBACK_CHARS_MAX]}".rstrip()
            case Said():
                self._node.on_said(frame)
            case Dropped():
                if seat.state is State.DROPPING:
                    seat.state = State.READY
                    self._refill(seat)
            case Starved():
                if seat.state is State.READY:
                    seat.fault = "a job read from files of its runner"
                    self._staff.kill(seat)

    def _ready(self, seat: Seat, ready: Ready) -> None:
        if seat.state is State.STARTING:
            self.tasks = {info.name: info for info in ready.tasks}
            self.queues = {info.name: info for info in ready.queues}
            self._staff.is_up(seat)
            self._reports.flush()
            self._refill(seat)

    # -- what the guard says -----------------------------------------------------------------------------------------

    def spawned(self, runner: int, pid: int, descriptors: Descriptors) -> None:
        assert self._questions is not None
        seat = self._seats[runner]
        seat.pid = pid
        seat.connect(
            descriptors, on_frames=self._received, on_questions=self._questions.asked,
            on_lost=self._staff.kill,
        )

    def refused(self, runner: int) -> None:
        self._seats.pop(runner, None)
        self._staff.halted = True
        self._changed.set()

    def exited(self, runner: int, status: int, reason: str) -> None:
        seat = self._seats.pop(runner, None)
        if seat is None:
            return
        seat.state = State.DYING
        if not seat.pid:
            seat.broken = f"the guard could not start a process: {reason}"
        started, waiting = seat.autopsy()
        self._reports.runner_died(seat)
        if not self._staff.halted:
            self._put_back(seat, waiting)
            self._bury(seat, started, status)
            if not seat.was_ready:
                self._staff.did_not_start(seat, status)
            self._staff.maintain()
            self._fill(seat.kind)
        self._changed.set()

    def expired(self) -> None:
        log.error("the lease's deadline has passed before it was renewed: the guard has killed all runners")
        self._halt()
        for seat in self._seats.values():
            seat.state = State.DYING

    def guard_lost(self) -> None:
        """It takes this process with it, unless it is a child of this one."""
        log.critical("the guard is gone, and all runners with it")
        self._halt()
        self._staff.stopping = True
        self._seats.clear()
        self._changed.set()

    def _bury(self, seat: Seat, started: list[Sent], status: int) -> None:
        outcomes = self._inquest.hold(seat, started, status)
        if self._suspects.waiting:
            self._summon()
        if outcomes:
            self._node.on_outcomes(outcomes)

    def _summon(self) -> None:
        """Let there be a runner for suspects."""
        if not self._apart:
            self._apart, self._apart_since = 1, self._loop.time()
        self._fill_apart()
