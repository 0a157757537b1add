"""The runners of a node: who runs what, what becomes of it when a runner dies.

`Runners` is the seam (the simulation has a scripted one), `RunnerPool` the real thing: N runners of plain functions and
one of `async def` jobs, started by the guard. Work waits in one queue per mode and goes to runners a little ahead of
what they run; what was not started can be taken back at any moment (see `rota.worker.channel.permits`), so nothing is
stuck behind a job that takes long.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import msgspec

from rota.client.backoff import delay_s as backoff_s
from rota.client.errors import ConfigError, EnqueueError
from rota.client.ids import job_id
from rota.client.model import Enqueue, Mode, Outcome, QueueInfo, Receipt, TaskInfo
from rota.worker.channel.frames import Broken, Done, Dropped, FromRunner, Ready, Started, Starved, Touched, Work
from rota.worker.channel.slots import job_of, slot_of
from rota.worker.guard.guardlink import Descriptors, GuardLink
from rota.worker.pool.desk import Desk
from rota.worker.pool.ready import AHEAD_BYTES_MAX, AHEAD_JOBS_MIN, AHEAD_S, Job, Pace, ReadyQueue
from rota.worker.pool.seat import Seat, State

__all__ = ["GuardLink", "PoolConfig", "RunnerPool", "Runners", "Work"]

log = logging.getLogger(__name__)

TICK_S = 0.05
CANCEL_GRACE_S = 2.0
"""An async job that is not gone so long after it ran into its timeout takes its runner with it; likewise a job that was
cancelled, where its task does not say how long."""
STOP_HOOKS_S = 5.0
RESTART_MIN_S, RESTART_MAX_S = 1.0, 30.0


class Runners(Protocol):
    """The seam between the node and its runners. Callbacks are given at construction."""

    tasks: dict[str, TaskInfo]
    queues: dict[str, QueueInfo]
    capacity: dict[Mode, int]
    trouble: str | None

    @property
    def stand(self) -> bool:
        """Whether there is a runner that can be given jobs."""
        ...

    async def start(self) -> None: ...
    def submit(self, work: Work) -> None: ...
    def cancel(self, key: int, index: int) -> None: ...
    def withdraw(self, keys: Iterable[int] | None) -> list[tuple[int, list[int]]]: ...
    def running(self) -> list[tuple[int, int]]: ...
    def begins(self, mode: Mode) -> bool: ...
    def busy(self, mode: Mode) -> bool: ...
    def lease(self, lease_id: int, deadline_boottime: float) -> None: ...
    def no_lease(self) -> None: ...
    async def kill_all(self) -> None: ...
    async def stop(self, grace_s: float) -> None: ...


class PoolConfig(msgspec.Struct, frozen=True, kw_only=True):
    apps: tuple[str, ...] = ()
    sync_runners: int = 1
    async_capacity: int = 100
    memory_bytes_max: int = 0           # of each runner; 0: no limit
    start_timeout_s: float = 60.0


class RunnerPool:
    """All methods belong to one event loop. `on_outcomes` is called with batches, in the order in which jobs ended.

    Jobs of a runner that died get their outcome from the task's retry options; those that it had not started go to
    another runner. What ends because of the lease, `kill_all` or the end of `stop`'s grace has no outcome. Jobs that
    were running beside one that had to be killed are snoozed: it was not their fault.
    """

    def __init__(
        self, config: PoolConfig, guard: GuardLink, *,
        on_outcomes: Callable[[list[tuple[int, Outcome]]], None],
        on_expired: Callable[[], None],
        on_enqueue: Callable[[list[Enqueue]], Awaitable[list[Receipt | EnqueueError]]],
        on_started: Callable[[int, int], None] | None = None,
        on_function: Callable[[str, bytes], Awaitable[None]] | None = None,
        on_task_mode: Callable[[str], Awaitable[Mode | None]] | None = None,
    ) -> None:
        self.config = config
        self.tasks: dict[str, TaskInfo] = {}
        self.queues: dict[str, QueueInfo] = {}
        self.capacity: dict[Mode, int] = {"async": config.async_capacity, "sync": config.sync_runners}
        self.trouble: str | None = None
        """Why there are no runners (the app cannot be imported any more), or None."""
        self._guard = guard
        self._on_outcomes = on_outcomes
        self._on_expired = on_expired
        self._on_started = on_started
        self._desk = Desk(on_enqueue, on_function, on_task_mode)
        self._wanted: dict[Mode, int] = {"sync": config.sync_runners, "async": min(1, config.async_capacity)}
        self._queues: dict[Mode, ReadyQueue] = {"sync": ReadyQueue(), "async": ReadyQueue()}
        self._seats: dict[int, Seat] = {}
        self._numbers = 0
        self._pace = Pace()
        self._halted = True             # no runner may be started
        self._stopping = False
        self._failures = 0              # starts that failed, in a row
        self._spawn_timer: asyncio.TimerHandle | None = None
        self._tick_timer: asyncio.TimerHandle | None = None
        self._started: asyncio.Future[None] | None = None
        self._changed = asyncio.Event()

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start all runners; returns when they have imported the app. Raises `ConfigError` if they cannot."""
        self._loop = asyncio.get_running_loop()
        self._guard.open(self)
        self._halted = False
        self._started = self._loop.create_future()
        self._maintain()
        try:
            async with asyncio.timeout(self.config.start_timeout_s):
                await self._started
        except TimeoutError:
            await self.kill_all()
            raise ConfigError(
                f"the runners have not started within {self.config.start_timeout_s:g} s: what do "
                f"{', '.join(self.config.apps) or 'the start hooks'} wait for while they are imported?"
            ) from None
        except ConfigError:
            await self.kill_all()
            raise

    async def stop(self, grace_s: float) -> None:
        """End in good order: what runs may go on for `grace_s`, what waits is forgotten, so withdraw it first."""
        self._stopping = True
        self.withdraw(None)
        await self._until(lambda: not any(seat.sent for seat in self._seats.values()), grace_s)
        for seat in self._seats.values():
            if seat.state in (State.READY, State.DROPPING) and not seat.sent:
                seat.stop()
            else:
                seat.sent.clear()
                self._kill(seat)
        await self._until(lambda: not self._seats, STOP_HOOKS_S)
        await self.kill_all()
        self._desk.close()
        if self._tick_timer is not None:
            self._tick_timer.cancel()

    async def kill_all(self) -> None:
        """Forget all work, kill all runners; they are reaped when it returns. The next `lease` starts new ones."""
        self._halt()
        dying = set(self._seats)
        for number in dying:
            self._kill(self._seats[number])
        await self._until(lambda: not dying & self._seats.keys())

    def lease(self, lease_id: int, deadline_boottime: float) -> None:
        self._guard.lease(lease_id, deadline_boottime)
        if self._halted and not self._stopping and self._started is not None and self._started.done():
            self._halted = False
            self._maintain()

    def no_lease(self) -> None:
        self._guard.no_lease()

    def _halt(self) -> None:
        self._halted = True
        if self._spawn_timer is not None:
            self._spawn_timer.cancel()
            self._spawn_timer = None
        for queue in self._queues.values():
            queue.clear()
        for seat in self._seats.values():
            seat.sent.clear()

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
        return [item for queue in self._queues.values() for item in queue.withdraw(wanted).items()]

    def cancel(self, key: int, index: int) -> None:
        """End one job as cancelled, wherever it is. One that runs has a grace time, in which it may still choose to end
        in another way."""
        slot = slot_of(key, index)
        seat = next((seat for seat in self._seats.values() if slot in seat.sent), None)
        if seat is not None and seat.kind == "sync":
            self._take_back(seat)           # perhaps it has not begun
        if seat is not None and slot in seat.sent:
            info = self.tasks.get(seat.sent[slot][0].task)
            seat.cancel(key, index)
            seat.doomed.setdefault(slot, Outcome(index, "cancelled", error="cancelled"))
            seat.expect(slot, self._loop.time() + (CANCEL_GRACE_S if info is None else info.cancel_grace_s))
            return
        if any(queue.remove(key, index) for queue in self._queues.values()):
            self._loop.call_soon(self._on_outcomes, [(key, Outcome(index, "cancelled", error="cancelled"))])

    def running(self) -> list[tuple[int, int]]:
        """(key, index) of each job that has been started."""
        return [job_of(slot) for seat in self._seats.values() for slot in seat.started()]

    @property
    def stand(self) -> bool:
        """Whether a runner is there that has imported the app (or none is wanted)."""
        there = any(seat.was_ready and seat.state is not State.DYING for seat in self._seats.values())
        return there or not any(self._wanted.values())

    def begins(self, mode: Mode) -> bool:
        """Whether there is a slot for each job that waits here, and jobs are being begun: it is no use to take them
        back. Jobs of plain functions begin one after the other, so for them it is not so."""
        if mode == "sync" or self._queues[mode]:
            return False
        return any(seat.begins(self._loop.time()) for seat in self._seats.values() if seat.kind == mode)

    def busy(self, mode: Mode) -> bool:
        """Whether every slot is taken by a job that has begun."""
        return sum(len(seat.started()) for seat in self._seats.values() if seat.kind == mode) >= self.capacity[mode]

    def _take_back(self, seat: Seat) -> None:
        """To the head of the queue, where it came from."""
        self._queues[seat.kind].put_back(seat.take_back())
        if seat.fault:
            self._kill(seat)

    # -- dispatch ----------------------------------------------------------------------------------------------------

    def _fill(self, mode: Mode) -> None:
        if not self._queues[mode]:
            return
        seats = [seat for seat in self._seats.values() if seat.kind == mode and seat.state is State.READY]
        if len(seats) > 1:
            seats.sort(key=lambda seat: len(seat.sent))
        for seat in seats:
            self._fill_seat(seat)

    def _fill_seat(self, seat: Seat) -> None:
        queue = self._queues[seat.kind]
        now = self._loop.time()
        while queue and seat.state is State.READY:
            work = queue.first()
            room = self._room(seat, work.task)
            if room <= 0:
                break
            jobs = queue.take(room)
            seat.send(work, jobs, now)
            if seat.kind == "async":
                self._expect(seat, work, jobs, now)
        if seat.sent and self._tick_timer is None:
            self._tick_timer = self._loop.call_later(TICK_S, self._tick)

    def _room(self, seat: Seat, task: str) -> int:
        if seat.kind == "async":
            return seat.capacity - len(seat.sent)
        if seat.bytes_ahead >= AHEAD_BYTES_MAX:
            return AHEAD_JOBS_MIN - len(seat.sent)
        return self._pace.ahead(task) - len(seat.sent)

    def _expect(self, seat: Seat, work: Work, jobs: list[Job], now: float) -> None:
        timeout_s = self._timeout_of(work)
        if timeout_s is not None:
            for index, _ in jobs:
                seat.expect(slot_of(work.key, index), now + timeout_s + CANCEL_GRACE_S)

    def _timeout_of(self, work: Work) -> float | None:
        if work.options.timeout_s is not None:
            return work.options.timeout_s
        info = self.tasks.get(work.task)
        return None if info is None else info.timeout_s

    def _tick(self) -> None:
        """Twenty times a second while anything runs: what is overdue, and who could help whom."""
        self._tick_timer = None
        now = self._loop.time()
        for seat in list(self._seats.values()):
            if seat.state is State.DYING:
                continue
            if seat.kind == "sync":
                self._check_head(seat, now)
                self._check_doomed(seat, now)
            else:
                self._check_overdue(seat, now)
        self._steal(now)
        if any(seat.sent for seat in self._seats.values()):
            self._tick_timer = self._loop.call_later(TICK_S, self._tick)

    def _check_head(self, seat: Seat, now: float) -> None:
        head = seat.head()
        if head is None:
            return
        slot, work = head
        timeout_s = self._timeout_of(work)
        if timeout_s is None or now < max(seat.head_since, seat.touched.get(slot, 0.0)) + timeout_s:
            return
        seat.read_now()
        if slot in seat.sent and now >= seat.touched.get(slot, 0.0) + timeout_s:
            text = f"TimeoutError: timed out after {timeout_s:g} s"
            self._kill_for(seat, slot, seat.doomed.get(slot) or self._ended(work, job_of(slot)[1], text))

    def _check_doomed(self, seat: Seat, now: float) -> None:
        """A plain function that was asked to stop, and did not."""
        for slot in list(seat.overdue(now)):
            seat.read_now()
            if slot in seat.sent and seat.state is not State.DYING:
                self._kill_for(seat, slot, seat.doomed[slot])

    def _check_overdue(self, seat: Seat, now: float) -> None:
        slots = list(seat.overdue(now))
        if not slots:
            return
        seat.read_now()
        started = set(seat.started())
        for slot in slots:
            if slot not in seat.sent:
                continue
            if slot not in started:         # something blocks the loop, but not this one
                seat.expect(slot, now + CANCEL_GRACE_S)
                continue
            work = seat.sent[slot][0]
            limit = seat.touched.get(slot, 0.0) + (self._timeout_of(work) or 0.0) + CANCEL_GRACE_S
            if now < limit and slot not in seat.doomed:
                seat.expect(slot, limit)
                continue
            text = f"TimeoutError: did not end when it was cancelled after its timeout of {self._timeout_of(work)} s"
            self._kill_for(seat, slot, seat.doomed.get(slot) or self._ended(work, job_of(slot)[1], text))

    def _steal(self, now: float) -> None:
        """A sync runner with nothing to do gets what waits behind a job that takes long."""
        seats = [seat for seat in self._seats.values() if seat.kind == "sync" and seat.state is State.READY]
        idle = [seat for seat in seats if not seat.sent]
        if not idle or self._queues["sync"]:
            return
        for seat in seats:
            if len(seat.sent) > 1 and now - seat.head_since > AHEAD_S:
                self._take_back(seat)
        self._fill("sync")

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
        if outcomes:
            self._learn(seat, "" if head is None else head[1].task, len(outcomes))
            if seat.doomed and seat.state is not State.DYING:
                for key, outcome in outcomes:
                    seat.doomed.pop(slot_of(key, outcome.index), None)
            self._fill_seat(seat)
            self._on_outcomes(outcomes)
            self._changed.set()
        return bool(seat.sent)

    def _learn(self, seat: Seat, task: str, count: int) -> None:
        now = self._loop.time()
        if seat.kind == "sync":
            self._pace.learn(task, (now - seat.head_since) / count)
        seat.head_since = now

    def _heard(self, seat: Seat, frame: FromRunner) -> None:
        match frame:
            case Ready(tasks, queues):
                self.queues = {info.name: info for info in queues}
                self._ready(seat, tasks)
            case Touched(key, index):
                if slot_of(key, index) in seat.sent:
                    seat.touched[slot_of(key, index)] = self._loop.time()
            case Broken(error, traceback):
                seat.broken = f"{error}\n{traceback}".rstrip()
            case Started(key, index):
                if self._on_started is not None:
                    self._on_started(key, index)
            case Dropped():
                if seat.state is State.DROPPING:
                    seat.state = State.READY
                    self._fill_seat(seat)
            case Starved():
                if seat.state is State.READY:
                    seat.fault = "a job read from files of its runner"
                    self._kill(seat)

    def _ready(self, seat: Seat, tasks: list[TaskInfo]) -> None:
        if seat.state is not State.STARTING:
            return
        seat.state = State.READY
        seat.was_ready = True
        self._failures = 0
        self.trouble = None
        self.tasks = {info.name: info for info in tasks}
        self._maintain()
        self._fill_seat(seat)
        up = sum(seat.was_ready for seat in self._seats.values())
        if self._started is not None and not self._started.done() and up == sum(self._wanted.values()):
            self._started.set_result(None)

    # -- what the guard says -----------------------------------------------------------------------------------------

    def spawned(self, runner: int, pid: int, descriptors: Descriptors) -> None:
        seat = self._seats[runner]
        seat.pid = pid
        seat.connect(descriptors, on_frames=self._received, on_questions=self._desk.asked, on_lost=self._kill)

    def refused(self, runner: int) -> None:
        self._seats.pop(runner, None)
        self._halted = True
        self._changed.set()

    def exited(self, runner: int, status: int, reason: str) -> None:
        seat = self._seats.pop(runner, None)
        if seat is None:
            return
        seat.state = State.DYING
        if not seat.pid:
            seat.broken = f"the guard could not start a process: {reason}"
        started, waiting = seat.autopsy()
        if not self._halted:
            self._queues[seat.kind].put_back(waiting)
            self._bury(seat, started, status)
            if not seat.was_ready:
                self._start_failed(seat, status)
            self._maintain()
            self._fill(seat.kind)
        self._changed.set()

    def expired(self) -> None:
        log.error("the lease's deadline has passed before it was renewed: the guard has killed all runners")
        self._halt()
        for seat in self._seats.values():
            seat.state = State.DYING
        self._on_expired()

    def guard_lost(self) -> None:
        """It takes this process with it, unless it is a child of this one."""
        log.critical("the guard is gone, and all runners with it")
        self._halt()
        self._stopping = True
        self._seats.clear()
        self._changed.set()
        self._on_expired()

    def _bury(self, seat: Seat, started: list[tuple[Work, Job]], status: int) -> None:
        """What becomes of the jobs that ran in a runner that is dead."""
        text = seat.epitaph(status)
        innocent = seat.kind == "async" and seat.killed_for_job
        outcomes = []
        for work, (index, _) in started:
            outcome = seat.doomed.get(slot_of(work.key, index))
            if outcome is None and innocent:
                outcome = Outcome(index, "snooze", error="its runner was killed because of another job")
            outcomes.append((work.key, outcome or self._ended(work, index, text)))
        if outcomes:
            log.warning("%s; it was running %d job(s)", text, len(outcomes))
            self._on_outcomes(outcomes)

    def _ended(self, work: Work, index: int, error: str) -> Outcome:
        """Failed, or to be tried again if the task's options allow it."""
        info = self.tasks.get(work.task) or TaskInfo(work.task, work.mode)
        job = job_id(work.bundle, index)
        if work.attempt >= (work.options.max_attempts or info.max_attempts):
            log.error("job %s (%s) failed for good, at attempt %d: %s", job, work.task, work.attempt, error)
            return Outcome(index, "failed", error=error)
        delay_s = backoff_s(info, work.options, work.attempt)
        log.warning("job %s (%s) failed, and is tried again in %.3g s: %s", job, work.task, delay_s, error)
        return Outcome(index, "retry", error=error, delay_s=delay_s)

    # -- runners come and go -----------------------------------------------------------------------------------------

    def _maintain(self) -> None:
        """Start what is missing; one at a time, and ever less often, while starts fail."""
        if self._halted or self._stopping or self._spawn_timer is not None:
            return
        for kind, wanted in self._wanted.items():
            while sum(seat.kind == kind for seat in self._seats.values()) < wanted:
                if self._failures and any(seat.state is State.STARTING for seat in self._seats.values()):
                    return
                self._spawn(kind)

    def _spawn(self, kind: Mode) -> None:
        self._numbers += 1
        seat = Seat(self._numbers, kind, self.config.async_capacity, self._loop.time())
        self._seats[seat.number] = seat
        argv = [sys.executable, "-m", "rota.worker.runner.process", "--kind", kind]
        for app in self.config.apps:
            argv += ["--app", app]
        if self.config.memory_bytes_max:
            argv += ["--memory-bytes", str(self.config.memory_bytes_max)]
        self._guard.spawn(seat.number, argv)

    def _start_failed(self, seat: Seat, status: int) -> None:
        why = seat.broken or f"while it imported the app, the {seat.epitaph(status)}"
        if self._started is not None and not self._started.done():
            self._started.set_exception(ConfigError(f"the runners cannot start: {why}"))
            self._halted = True
            return
        self._failures += 1
        self.trouble = why
        delay_s = min(RESTART_MIN_S * 2 ** (self._failures - 1), RESTART_MAX_S)
        log.error("a runner cannot start, trying again in %g s: %s", delay_s, why)
        if self._spawn_timer is not None:
            self._spawn_timer.cancel()
        self._spawn_timer = self._loop.call_later(delay_s, self._spawn_again)

    def _spawn_again(self) -> None:
        self._spawn_timer = None
        self._maintain()

    def _kill_for(self, seat: Seat, slot: int, outcome: Outcome) -> None:
        seat.doomed[slot] = outcome
        seat.killed_for_job = True
        self._kill(seat)

    def _kill(self, seat: Seat) -> None:
        seat.state = State.DYING
        self._guard.kill(seat.number)
