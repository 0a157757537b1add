"""How many runners there are, and of what kind: what is missing is started, what is worn is replaced."""

from __future__ import annotations

import asyncio
import logging
import sys

import msgspec

from rota.client.errors import ConfigError
from rota.client.model import Mode

from ..guard.guardlink import GuardLink
from .runner_handle import Role, RunnerHandle, State

log = logging.getLogger(__name__)

RESTART_MIN_S, RESTART_MAX_S = 1.0, 30.0
STOP_HOOKS_S = 5.0
"""A runner that was told to stop, and has nothing to do, is killed after this."""
GOES_S = 1.0
"""So long a runner whose channel has ended may take to go by itself."""


class PoolConfig(msgspec.Struct, frozen=True, kw_only=True):
    apps: tuple[str, ...] = ()
    sync_runners: int = 1
    async_capacity: int = 100
    async_processes: int = 1            # event loops that share the capacity
    spare_runners: int = 0              # more, one job each, for queues of which nothing runs
    jobs_per_runner_max: int = 0        # then a runner is replaced; 0: never
    runner_bytes_max: int = 0           # likewise, when it has more in memory than this
    start_timeout_s: float = 60.0


class Staff:
    """The runners of a pool, by number. `wanted`: how many there are to be of each kind and role; of what is too much
    nothing is done here."""

    def __init__(self, config: PoolConfig, guard: GuardLink) -> None:
        self.runners: dict[int, RunnerHandle] = {}
        self.trouble: str | None = None
        self.halted = True              # no runner may be started
        self.stopping = False
        self.started: asyncio.Future[None] | None = None
        self._config = config
        self._guard = guard
        self.wanted: dict[tuple[Mode, Role], int] = {
            ("sync", "regular"): config.sync_runners,
            ("async", "regular"): min(config.async_processes, config.async_capacity),
            ("async", "apart"): 0,
            ("sync", "spare"): 0,
        }
        self._numbers = 0
        self._failures = 0              # starts that failed, in a row
        self._spawn_timer: asyncio.TimerHandle | None = None

    def open(self) -> asyncio.Future[None]:
        """Start all runners. The future is done when they have imported the app."""
        self._loop = asyncio.get_running_loop()
        self.halted = False
        self.started = self._loop.create_future()
        self.maintain()
        return self.started

    def of(self, kind: Mode, role: Role = "regular", state: State | None = State.READY) -> list[RunnerHandle]:
        return [
            runner for runner in self.runners.values()
            if runner.kind == kind and runner.role == role
            and (state is None or (runner.state is state and not runner.leaving))
        ]

    def maintain(self) -> None:
        """Start what is missing; one at a time, and ever less often, while starts fail."""
        if self.halted or self.stopping or self._spawn_timer is not None:
            return
        for (kind, role), wanted in self.wanted.items():
            while self._present(kind, role) < wanted:
                if self._failures and any(runner.state is State.STARTING for runner in self.runners.values()):
                    return
                self._spawn(kind, role)

    def _present(self, kind: Mode, role: Role) -> int:
        return sum(
            runner.kind == kind and runner.role == role and not runner.leaving for runner in self.runners.values()
        )

    def _spawn(self, kind: Mode, role: Role) -> None:
        self._numbers += 1
        runner = RunnerHandle(self._numbers, kind, self._loop.time(), role=role)
        self.runners[runner.number] = runner
        argv = [sys.executable, "-P", "-m", "rota.worker.runner.process", "--kind", kind]
        if kind == "async":
            argv += ["--at-once", str(int(self._config.async_capacity))]
        for app in self._config.apps:
            argv += ["--app", app]
        self._guard.spawn(runner.number, argv)

    def is_up(self, runner: RunnerHandle) -> None:
        """It has imported the app."""
        runner.state, runner.was_ready = State.READY, True
        self._failures = 0
        self.trouble = None
        self.maintain()
        up = sum(runner.was_ready and runner.role == "regular" for runner in self.runners.values())
        wanted = self.wanted["sync", "regular"] + self.wanted["async", "regular"]
        if self.started is not None and not self.started.done() and up == wanted:
            self.started.set_result(None)

    def did_not_start(self, runner: RunnerHandle, status: int) -> None:
        why = runner.broken or f"while it imported the app, the {runner.epitaph(status)}"
        if self.started is not None and not self.started.done():
            self.started.set_exception(ConfigError(f"the runners cannot start: {why}"))
            self.halted = True
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
        self.maintain()

    def kill(self, runner: RunnerHandle) -> None:
        runner.state = State.DYING
        self._guard.kill(runner.number)

    def lost(self, runner: RunnerHandle) -> None:
        """Its channel has ended. It goes by itself, and how it ends says why; but not if it garbled it, or stays."""
        if runner.fault:
            self.kill(runner)
        else:
            runner.state = State.DYING
            self._loop.call_later(GOES_S, self._end, runner)

    def _end(self, runner: RunnerHandle) -> None:
        if self.runners.get(runner.number) is runner:
            self.kill(runner)

    def retire(self, runner: RunnerHandle) -> bool:
        """Have it replaced: it gets nothing more, and goes when it has nothing to do. One of a kind at a time. False:
        not now."""
        leaving = any(other.leaving and other.kind == runner.kind for other in self.runners.values())
        if leaving or self.stopping:
            return False
        runner.leaving = True
        self.maintain()
        return True

    def dismiss(self, runner: RunnerHandle) -> None:
        """It has nothing to do, and is not needed any more."""
        runner.leaving = True
        runner.stop()
        self._loop.call_later(STOP_HOOKS_S, self._insist, runner)

    def _insist(self, runner: RunnerHandle) -> None:
        if self.runners.get(runner.number) is runner and runner.state is State.STOPPING:
            self.kill(runner)

    def halt(self) -> None:
        """Until the next lease no runner is started, and then only regular ones; what was sent to one is forgotten."""
        self.halted = True
        self.wanted["async", "apart"] = self.wanted["sync", "spare"] = 0
        if self._spawn_timer is not None:
            self._spawn_timer.cancel()
            self._spawn_timer = None
        for runner in self.runners.values():
            runner.sent.clear()

    def resume(self) -> None:
        if self.halted and not self.stopping and self.started is not None and self.started.done():
            self.halted = False
            self.maintain()
