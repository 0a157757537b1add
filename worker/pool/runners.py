"""The runners of a node: who runs what, what becomes of it when a runner dies.

`interface` is the seam (the simulation has a scripted one), `RunnerPool` the real thing: N runners of plain functions,
and one or more of `async def` jobs, started by the guard. Work waits in one queue per mode and goes to runners a little
ahead of what they run; what was not started can be taken back at any moment (`..channel.start_permits`), so
nothing is stuck behind a job that takes long.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from rota.client.errors import ConfigError
from rota.client.model import Mode, Outcome, QueueInfo, TaskInfo

from ..channel.frames import Work
from ..channel.job_numbers import job_number, job_of
from ..guard.guardlink import Descriptors, GuardLink
from .dispatch import Dispatch, Ticker
from .inquest import Inquest
from .interface import NodeSide
from .questions import Questions
from .ready import Waiting
from .reception import Code, Reception
from .reports import Reports
from .runner_handle import RunnerHandle, State
from .staff import STOP_HOOKS_S, PoolConfig, Staff
from .suspects import Sent
from .time_limits import TimeLimits

log = logging.getLogger(__name__)


class RunnerPool:
    """All methods belong to one event loop.

    A job whose runner died because of it gets its outcome from its task's retry options. What its runner had not begun,
    and what ran beside it, runs again; so it is with jobs of a runner that died of nobody knows whom (see `suspects`).
    What ends because of the lease, `kill_all` or the end of `stop`'s grace has no outcome.
    """

    def __init__(self, config: PoolConfig, guard: GuardLink) -> None:
        self.config = config
        self.capacity: dict[Mode, int] = {"async": config.async_capacity, "sync": config.sync_runners}
        self.spare: dict[Mode, int] = {
            mode: config.spare_runners for mode, capacity in self.capacity.items() if capacity
        }
        self._guard = guard
        self._code = code = Code()
        self._staff = Staff(config, guard)
        self._waiting = Waiting()
        self._ticker = Ticker()
        self._limits = limits = TimeLimits(code.info_of)
        self._reports = Reports(self._staff.runners)
        self._inquest = Inquest(code.info_of, self._waiting.put_back, self._reports.add)
        self._suspects = suspects = self._inquest.suspects
        self._dispatch = Dispatch(config, self._staff, self._waiting, suspects, limits, self._ticker, self.capacity)
        self._changed = asyncio.Event()
        self._questions: Questions | None = None

    @property
    def tasks(self) -> dict[str, TaskInfo]:
        return self._code.tasks

    @property
    def queues(self) -> dict[str, QueueInfo]:
        return self._code.queues

    @property
    def trouble(self) -> str | None:
        """Why there are no runners (the app cannot be imported any more), or None."""
        return self._staff.trouble

    @property
    def _runners(self) -> dict[int, RunnerHandle]:
        return self._staff.runners

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self, node: NodeSide) -> None:
        """Start all runners; returns when they have imported the app. Raises `ConfigError` if they cannot."""
        self._loop = asyncio.get_running_loop()
        self._node = node
        self._questions = Questions(node)
        self._reception = Reception(node, self._code, self._staff, self._dispatch, self._reports, self._changed)
        self._ticker.start(self._tick)
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
        await self._until(lambda: not any(runner.sent for runner in self._runners.values()), grace_s)
        for runner in self._runners.values():
            if runner.state in (State.READY, State.DROPPING) and not runner.sent:
                runner.stop()
            elif runner.state is not State.STOPPING:
                runner.sent.clear()
                self._staff.kill(runner)
        await self._until(lambda: not self._runners, STOP_HOOKS_S)
        await self.kill_all()
        if self._questions is not None:
            self._questions.close()
        self._ticker.stop()

    async def kill_all(self) -> None:
        """Forget all work, kill all runners; they are reaped when it returns. The next `lease` starts new ones."""
        self._halt()
        dying = set(self._runners)
        for number in dying:
            self._staff.kill(self._runners[number])
        await self._until(lambda: not dying & self._runners.keys())

    def lease(self, lease_id: int, deadline_boottime: float) -> None:
        self._guard.lease(lease_id, deadline_boottime)
        self._staff.resume()

    def no_lease(self) -> None:
        self._guard.no_lease()

    def _halt(self) -> None:
        self._waiting.clear()
        self._suspects.clear()
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
        self._waiting[work.mode].add(work)
        self._dispatch.fill(work.mode)

    def withdraw(self, keys: Iterable[int] | None) -> list[tuple[int, list[int]]]:
        """Give back what has not been started, of these works or of all: (key, indexes)."""
        wanted = None if keys is None else set(keys)
        for runner in list(self._runners.values()):
            if wanted is None or runner.has_any(wanted):
                self._dispatch.take_back(runner)
        given: dict[int, list[int]] = {}
        for place in (self._waiting, self._suspects):
            for key, indexes in place.withdraw(wanted).items():
                given.setdefault(key, []).extend(indexes)
        return list(given.items())

    def cancel(self, key: int, index: int) -> None:
        """End one job as cancelled, wherever it is. One that runs has a grace time, in which it may still choose to end
        in another way."""
        number = job_number(key, index)
        runner = next((runner for runner in self._runners.values() if number in runner.sent), None)
        if runner is not None and (runner.kind == "sync" or runner.waiting()):
            self._dispatch.take_back(runner)           # perhaps it has not begun
        if runner is not None and number in runner.sent:
            runner.cancel(key, index)
            runner.doomed.setdefault(number, Outcome(index, "cancelled", error="cancelled"))
            runner.expect(number, self._loop.time() + self._limits.grace_s(runner.sent[number][0]))
            return
        if self._waiting.remove(key, index) or self._suspects.remove(number):
            self._loop.call_soon(self._node.on_outcomes, [(key, Outcome(index, "cancelled", error="cancelled"))])

    def running(self) -> list[tuple[int, int]]:
        """(key, index) of each job that has been started."""
        return [job_of(number) for runner in self._runners.values() for number in runner.started()]

    def report(self, work: Work, index: int, error: str) -> None:
        """A job has failed for good elsewhere: have the application's error hooks called."""
        self._reports.add(work, index, error)

    @property
    def stand(self) -> bool:
        """Whether a runner is there that has imported the app (or none is wanted)."""
        there = any(runner.was_ready and runner.state is not State.DYING for runner in self._runners.values())
        return there or not any(count for (_, role), count in self._staff.wanted.items() if role == "regular")

    def keeps(self, key: int) -> bool:
        """Whether jobs of this work are suspects: elsewhere they would run among others again."""
        return self._suspects.has(key)

    def begins(self, mode: Mode) -> bool:
        """Whether there is a slot for each job that waits here, and jobs are being begun: it is no use to take them
        back. Jobs of plain functions begin one after the other, so for them it is not so."""
        runners = self._staff.of(mode, state=None)
        if mode == "sync" or self._waiting[mode] or any(len(one.sent) > self.capacity[mode] for one in runners):
            return False
        return any(runner.begins(self._loop.time()) for runner in runners)

    def busy(self, mode: Mode, queue: str) -> bool:
        """Whether every slot that a job of this queue could have is taken by a job that has begun."""
        running = sum(len(runner.started()) for runner in self._staff.of(mode, state=None))
        return running >= self.capacity[mode] and not self._dispatch.spares.open_to(mode, queue)

    def _tick(self) -> None:
        """Twenty times a second while anything runs: what is overdue, and who could help whom."""
        now = self._loop.time()
        for runner in list(self._runners.values()):
            self._reception.look(runner)
            if runner.state is not State.DYING and (overdue := self._limits.look(runner, now)) is not None:
                self._inquest.condemn(runner, overdue)
                self._staff.kill(runner)
        self._dispatch.steal(now)
        for runner in self._dispatch.wear.too_large([*self._staff.of("sync"), *self._staff.of("async")], now):
            self._dispatch.replace(runner)
            self._dispatch.refill(runner)
        self._dispatch.lend(now)
        self._reports.flush()
        self._dispatch.hurry_suspects(now)
        if self._dispatch.spares.tidy(now) or self._reports or any(runner.sent for runner in self._runners.values()):
            self._ticker.wake()

    # -- what the guard says -----------------------------------------------------------------------------------------

    def spawned(self, number: int, pid: int, descriptors: Descriptors) -> None:
        assert self._questions is not None
        runner = self._runners[number]
        runner.pid = pid
        runner.connect(
            descriptors, on_frames=self._reception.received, on_questions=self._questions.asked,
            on_lost=self._staff.lost, look=self._reception.look,
        )

    def refused(self, number: int) -> None:
        self._runners.pop(number, None)
        self._staff.halted = True
        self._changed.set()

    def exited(self, number: int, status: int, reason: str) -> None:
        runner = self._runners.pop(number, None)
        if runner is None:
            return
        runner.state = State.DYING
        if not runner.pid:
            runner.broken = f"the guard could not start a process: {reason}"
        started, waiting = runner.autopsy()
        self._reports.runner_died(runner)
        if not self._staff.halted:
            self._dispatch.put_back(runner, waiting)
            self._bury(runner, started, status)
            if not runner.was_ready:
                self._staff.did_not_start(runner, status)
            self._staff.maintain()
            self._dispatch.fill(runner.kind)
        self._changed.set()

    def expired(self) -> None:
        log.error("the lease's deadline has passed before it was renewed: the guard has killed all runners")
        self._halt()
        for runner in self._runners.values():
            runner.state = State.DYING

    def guard_lost(self) -> None:
        """It takes this process with it, unless it is a child of this one."""
        log.critical("the guard is gone, and all runners with it")
        self._halt()
        self._staff.stopping = True
        self._runners.clear()
        self._changed.set()

    def _bury(self, runner: RunnerHandle, started: list[Sent], status: int) -> None:
        outcomes = self._inquest.hold(runner, started, status)
        if self._suspects.waiting:
            self._dispatch.summon()
        if outcomes:
            self._node.on_outcomes(outcomes)

