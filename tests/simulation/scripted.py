"""Runners without processes: jobs take a scripted time and end as a scripted rule says, on the virtual loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from rota.client.model import Mode, Outcome, QueueInfo, TaskInfo
from rota.worker.pool.runners import Work


class Run(NamedTuple):
    """What a runner saw of a job."""

    what: str           # "start"; "end", or "killed" where there is no outcome
    at: float
    job: str
    node: str
    fence: int          # 0 where it began before its claim was stored (level `delayed`), or has none (level `none`)
    attempt: int
    outcome: str = ""   # of an end
    delay_s: float = 0.0    # of an end that is a retry


class ScriptedRunners:
    """The `Runners` seam. `play(work, index)` gives (seconds, outcome); what runs dies with `kill_all`."""

    trouble: str | None = None

    def __init__(
        self,
        tasks: dict[str, TaskInfo],
        capacity: dict[Mode, int],
        play: Callable[[Work, int], tuple[float, Outcome]],
        on_outcomes: Callable[[Iterable[tuple[int, Outcome]]], None],
        clock: Callable[[], float],
        record: Callable[[str, Work, int, Outcome | None], None] = lambda what, work, index, outcome: None,
        on_kill: Callable[[], None] = lambda: None,
    ) -> None:
        self.tasks = tasks
        self.queues: dict[str, QueueInfo] = {}
        self.capacity = capacity
        self._play = play
        self._on_outcomes = on_outcomes
        self._clock = clock
        self._record = record
        self._on_kill = on_kill
        self._waiting: dict[Mode, deque[tuple[Work, int]]] = {"async": deque(), "sync": deque()}
        self._running: dict[tuple[int, int], tuple[Work, asyncio.TimerHandle]] = {}
        self._used: dict[Mode, int] = {"async": 0, "sync": 0}
        self._deadline = 0.0
        self._guard: asyncio.TimerHandle | None = None
        self._heard = True
        self.dead = False

    async def start(self) -> None:
        return

    def submit(self, work: Work) -> None:
        if not self._heard:
            return              # a timer of a process that is no more
        self._waiting[work.mode].extend((work, index) for index, _ in work.jobs)
        self._pump(work.mode)

    def _pump(self, mode: Mode) -> None:
        while self._waiting[mode] and self._used[mode] < self.capacity.get(mode, 0) and not self.dead:
            if self._clock() >= self._deadline:
                return
            work, index = self._waiting[mode].popleft()
            seconds, outcome = self._play(work, index)
            self._record("start", work, index, None)
            self._used[mode] += 1
            timer = asyncio.get_running_loop().call_later(seconds, self._end, work, index, outcome)
            self._running[work.key, index] = (work, timer)

    def _end(self, work: Work, index: int, outcome: Outcome) -> None:
        del self._running[work.key, index]
        self._used[work.mode] -= 1
        self._record("end", work, index, outcome)
        if self._heard:
            self._pump(work.mode)
            self._on_outcomes([(work.key, outcome)])

    def cancel(self, key: int, index: int) -> None:
        """What waits is cancelled at once, and so is what runs on a loop; a sync job runs to its end."""
        cancelled = [(key, Outcome(index, "cancelled", error="cancelled"))]
        for waiting in self._waiting.values():
            for entry in waiting:
                if (entry[0].key, entry[1]) == (key, index):
                    waiting.remove(entry)
                    asyncio.get_running_loop().call_soon(self._on_outcomes, cancelled)
                    return
        work, timer = self._running.get((key, index), (None, None))
        if work is not None and timer is not None and work.mode == "async":
            timer.cancel()
            self._stopped(work, index)
            del self._running[key, index]
            asyncio.get_running_loop().call_soon(self._on_outcomes, cancelled)
            self._pump(work.mode)

    def _stopped(self, work: Work, index: int) -> None:
        self._used[work.mode] -= 1
        self._record("killed", work, index, None)

    @property
    def stand(self) -> bool:
        return True

    def keeps(self, key: int) -> bool:
        return False

    def begins(self, mode: Mode) -> bool:
        return False

    def busy(self, mode: Mode) -> bool:
        return self._used[mode] >= self.capacity.get(mode, 0)

    def withdraw(self, keys: Iterable[int] | None) -> list[tuple[int, list[int]]]:
        wanted = None if keys is None else set(keys)
        taken: dict[int, list[int]] = {}
        for mode, waiting in self._waiting.items():
            kept: deque[tuple[Work, int]] = deque()
            for work, index in waiting:
                if wanted is None or work.key in wanted:
                    taken.setdefault(work.key, []).append(index)
                else:
                    kept.append((work, index))
            self._waiting[mode] = kept
        return list(taken.items())

    def running(self) -> list[tuple[int, int]]:
        return list(self._running)

    def lease(self, lease_id: int, deadline_boottime: float) -> None:
        """As the guard does: at the deadline everything that runs is killed."""
        self._deadline = deadline_boottime
        if self._guard is not None:
            self._guard.cancel()
        loop = asyncio.get_running_loop()
        self._guard = loop.call_later(max(deadline_boottime - self._clock(), 0.0), self._kill)
        for mode in self._waiting:
            self._pump(mode)

    def no_lease(self) -> None:
        self._kill()

    def _kill(self) -> None:
        self._on_kill()
        for (_, index), (work, timer) in self._running.items():
            timer.cancel()
            self._stopped(work, index)
        self._running.clear()
        for waiting in self._waiting.values():
            waiting.clear()

    def orphan(self) -> None:
        """The node's process has died: what runs has nobody to tell, and nothing new comes."""
        self._heard = False
        for waiting in self._waiting.values():
            waiting.clear()

    def die(self) -> None:
        """As the guard does when the node's process has died."""
        self.dead = True
        self._kill()

    async def kill_all(self) -> None:
        self._kill()

    async def stop(self, grace_s: float) -> None:
        if not self._heard:
            return              # a dead node stops nothing: its guard does
        self.dead = True
        if self._guard is not None:
            self._guard.cancel()
        self._kill()
