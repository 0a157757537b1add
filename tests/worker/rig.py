"""A pool of real runners under a real guard, and what it tells its node."""

from __future__ import annotations

import asyncio
import os
import pickle
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from rota.client.calls import pickling
from rota.client.errors import EnqueueError, InvalidJob
from rota.client.model import NO_OPTIONS, Codec, Enqueue, Mode, Options, Outcome, Receipt, Step
from rota.worker.channel.frames import ProgressUpdate, Work
from rota.worker.guard.guardlink import GuardLink
from rota.worker.pool.runner_handle import State
from rota.worker.pool.runners import RunnerPool
from rota.worker.pool.staff import PoolConfig

APPS = Path(__file__).parent / "apps"
BUNDLE = "k3f9q2m7xa5t-0000001f"
PATIENCE_S = float(os.environ.get("STAGED_PATIENCE_S", "20"))        # as in tests/acceptance/rig.py


def new_permits() -> int:
    """As the guard makes them, which imports nothing of ours."""
    return os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)


class Rig:
    """Submits jobs of `jobs.py` and keeps their outcomes."""

    def __init__(self, config: PoolConfig) -> None:
        self.outcomes: dict[tuple[int, int], Outcome] = {}
        self.times: dict[tuple[int, int], float] = {}
        self.started: list[tuple[int, int]] = []
        self.enqueued: list[Enqueue] = []
        self.said: list[ProgressUpdate] = []
        self.functions: dict[str, bytes] = {}
        self.steps_of: dict[tuple[int, int], dict[str, Step]] = {}
        self.twice: list[tuple[int, Outcome]] = []
        self._changed = asyncio.Event()
        self._key = 0
        self.guard = GuardLink.attached()
        self.pool = RunnerPool(config, self.guard)

    @classmethod
    @asynccontextmanager
    async def open(cls, *, sync: int = 1, async_: int = 0, app: str = "jobs", **more: Any) -> Any:
        rig = cls(PoolConfig(apps=(app,), sync_runners=sync, async_capacity=async_, **more))
        try:
            await rig.pool.start(rig)
            yield rig
        finally:
            await rig.pool.stop(0)
            rig.guard.close()
            assert not rig.twice, f"two outcomes for one job: {rig.twice}"

    def submit(
        self, task: str, *calls: tuple[Any, ...], mode: Mode | None = None, app: str = "jobs", attempt: int = 1,
        function: Callable[..., Any] | None = None, payloads: list[bytes] | None = None, codec_: Codec = "pickle",
        report_start: bool = False, options: Options = NO_OPTIONS, queue: str = "default",
    ) -> int:
        """Jobs of one bundle, one a tuple of arguments. Returns the work's key."""
        name = f"{app}:{task}"
        if mode is None:
            mode = self.pool.tasks[name].mode if name in self.pool.tasks else "sync"
        if payloads is None:
            payloads = [pickle.dumps((call, {}), 5) for call in calls]
        self._key += 1
        self.pool.submit(Work(
            self._key, BUNDLE, name, queue, mode, attempt, 77, 1234.5, codec_, list(enumerate(payloads)),
            None if function is None else pickling.dump_function(function), options, report_start,
        ))
        return self._key

    async def outcome(self, key: int, index: int = 0) -> Outcome:
        await self.until(lambda: (key, index) in self.outcomes)
        return self.outcomes[key, index]

    async def run(self, task: str, *arguments: Any, **more: Any) -> Outcome:
        return await self.outcome(self.submit(task, arguments, **more))

    async def value(self, task: str, *arguments: Any, **more: Any) -> Any:
        outcome = await self.run(task, *arguments, **more)
        assert outcome.status == "ok", outcome
        return pickling.load_value(outcome.codec, outcome.value)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that an outcome, or time, brings about."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                try:
                    async with asyncio.timeout(0.02):
                        await self._changed.wait()
                except TimeoutError:
                    pass

    def pids(self) -> list[int]:
        return [runner.pid for runner in self.pool._runners.values()]

    def ready(self) -> list[int]:
        """The pids of runners that can be given work."""
        return [runner.pid for runner in self.pool._runners.values() if runner.state is State.READY]

    def on_progress(self, said: ProgressUpdate) -> None:
        self.said.append(said)

    def on_started(self, key: int, index: int) -> None:
        self.started.append((key, index))

    def on_outcomes(self, outcomes: list[tuple[int, Outcome]]) -> None:
        for key, outcome in outcomes:
            if (key, outcome.index) in self.outcomes:
                self.twice.append((key, outcome))
            self.outcomes[key, outcome.index] = outcome
            self.times[key, outcome.index] = time.monotonic()
        self._changed.set()

    async def enqueue(self, bundles: list[Enqueue]) -> list[Receipt | EnqueueError]:
        self.enqueued += bundles
        return [
            InvalidJob("no such place") if bundle.queue == "nowhere" else Receipt(bundle.bundle, 11, 10)
            for bundle in bundles
        ]

    async def put_function(self, digest: str, code: bytes) -> None:
        self.functions[digest] = code

    async def steps(self, key: int, index: int) -> tuple[list[Step], bool]:
        return list(self.steps_of.get((key, index), {}).values()), False

    async def remember(self, key: int, index: int, step: Step) -> None:
        self.steps_of.setdefault((key, index), {})[step.name] = step

    async def task_mode(self, task: str) -> Mode | None:
        return "sync" if task == "other:task" else None


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def exists(pid: int) -> bool:
    """Whether there is such a process, be it a zombie."""
    return Path(f"/proc/{pid}").exists()


async def eventually(condition: Callable[[], bool | Awaitable[bool]], patience_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(patience_s):
        while not condition():  # noqa: ASYNC110 - processes come and go without telling us
            await asyncio.sleep(0.005)


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def kill(pid: int, number: int) -> None:
    os.kill(pid, number)


__all__ = ["APPS", "BUNDLE", "Rig", "Self", "alive", "boottime", "eventually", "exists", "kill"]
