"""Runners without processes: jobs take a scripted time and end as a scripted rule says, on the virtual loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from rota.client.model import EXPIRED, Mode, Outcome, QueueInfo, TaskInfo
from rota.client.wire.views import LogLine
from rota.worker.channel.frames import ProgressUpdate, Work
from rota.worker.channel.job_numbers import job_number
from rota.worker.pool.inquest import Inquest
from rota.worker.pool.interface import NodeSide
from rota.worker.pool.suspects import Sent

if TYPE_CHECKING:
    from .memories import Remembering

KILLS_ITS_RUNNER = "kills its runner"
"""The error of a scripted end that takes along what runs on the same event loop."""


class Run(NamedTuple):
    """What a runner saw of a job."""

    what: str           # "start"; "end"; or, where there is no outcome, "killed" or "crashed" (it begins again)
    at: float
    job: str
    node: str
    fence: int          # 0 where it began before its claim was stored (level `delayed`), or has none (level `none`)
    attempt: int
    outcome: str = ""   # of an end
    delay_s: float = 0.0    # of an end that is a retry
    blamed: bool = False    # of an end: for the death of its runner
    mode: Mode = "sync"


class ScriptedRunners:
    """The `Runners` seam. `play(work, index)` gives (seconds, outcome); what runs dies with `kill_all`."""

    trouble: str | None = None

    def __init__(
        self,
        tasks: dict[str, TaskInfo],
        capacity: dict[Mode, int],
        play: Callable[[Work, int], tuple[float, Outcome]],
        clock: Callable[[], float],
        record: Callable[..., None] = lambda what, work, index, outcome, blamed=False: None,
        on_kill: Callable[[], None] = lambda: None,
        spare: int = 0,
        on_foreign: Callable[[Work], None] = lambda work: None,
        wall_ms: Callable[[], float] = lambda: 0.0,
        remembering: Remembering | None = None,
    ) -> None:
        self.tasks = tasks
        self.queues: dict[str, QueueInfo] = {}
        self.capacity = capacity
        self.spare: dict[Mode, int] = dict.fromkeys(capacity, spare)
        self._play = play
        self._clock = clock
        self._record = record
        self._on_kill = on_kill
        self._on_foreign = on_foreign
        self._wall_ms = wall_ms
        self._remembering = remembering
        self._waiting: dict[Mode, deque[tuple[Work, int]]] = {"async": deque(), "sync": deque()}
        self._running: dict[tuple[int, int], tuple[Work, asyncio.TimerHandle]] = {}
        self._used: dict[Mode, int] = {"async": 0, "sync": 0}
        self._inquest = Inquest(tasks.get, self._requeue)
        self._suspects = self._inquest.suspects
        self._apart: set[tuple[int, int]] = set()       # suspects that run, at most one
        self._deadline = 0.0
        self._guard: asyncio.TimerHandle | None = None
        self._heard = True
        self._frozen = False
        self._ended_frozen: list[tuple[Work, int, Outcome]] = []
        self._thawed = asyncio.Event()
        self._thawed.set()
        self.dead = False

    async def start(self, node: NodeSide) -> None:
        self._node = node

    def submit(self, work: Work) -> None:
        if not self._heard:
            return              # a timer of a process that is no more
        info = self.tasks.get(work.task)
        if work.function is None and (info is None or info.mode != work.mode):
            self._on_foreign(work)
        self._waiting[work.mode].extend((work, index) for index, _ in work.jobs)
        self._pump(work.mode)

    def _pump(self, mode: Mode) -> None:
        while self._waiting[mode] and self._used[mode] < self.capacity.get(mode, 0) and not self.dead:
            if not self._may_begin():
                return
            work, index = self._waiting[mode].popleft()
            self._used[mode] += 1
            self._begin(work, index)
        for work, index in list(self._waiting[mode]):
            if not self.dead and self._clock() < self._deadline and self._may_lend(mode, work.queue):
                self._waiting[mode].remove((work, index))
                self._used[mode] += 1
                self._begin(work, index)
        if mode == "async" and not self._apart and not self.dead and self._may_begin():
            sent = self._suspects.take()
            if sent is not None:
                self._apart.add((sent[0].key, sent[1][0]))
                self._begin(sent[0], sent[1][0])

    def _may_begin(self) -> bool:
        """A runner looks at the lease's deadline before it begins anything."""
        return not self._frozen and self._clock() < self._deadline

    def freeze(self) -> None:
        """The machine stands still: runners, guard and all."""
        self._frozen = True
        self._thawed.clear()

    def thaw(self, guard_s: float) -> None:
        """It goes on, the runners first, the guard so much later: it kills them if the deadline has passed."""
        self._frozen = False
        self._thawed.set()
        ended, self._ended_frozen = self._ended_frozen, []
        for work, index, outcome in ended:
            if (work.key, index) in self._running:
                self._end(work, index, outcome)
        for mode in self._waiting:
            if self._heard:
                self._pump(mode)
        asyncio.get_running_loop().call_later(guard_s, self._check_deadline)

    def _check_deadline(self) -> None:
        if not self._frozen and self._clock() >= self._deadline:
            self._kill()

    def _may_lend(self, mode: Mode, queue: str) -> bool:
        """A spare slot, for a queue of which nothing runs here."""
        running = any(work.mode == mode and work.queue == queue for work, _ in self._running.values())
        return not running and self._used[mode] < self.capacity.get(mode, 0) + self.spare.get(mode, 0)

    def _begin(self, work: Work, index: int) -> None:
        if self._is_late(work):
            self._used[work.mode] -= (work.key, index) not in self._apart
            self._apart.discard((work.key, index))
            self._suspects.ended(job_number(work.key, index))
            expired = [(work.key, Outcome(index, "expired", error=EXPIRED))]
            asyncio.get_running_loop().call_soon(self._node.on_outcomes, expired)
            return
        seconds, outcome = self._play(work, index)
        self._record("start", work, index, None)
        timer = asyncio.get_running_loop().call_later(seconds, self._end, work, index, outcome)
        self._running[work.key, index] = (work, timer)
        if self._remembering is not None and self._heard:
            self._remembering.begin(self._node, work, index)
        if index % 3 == 0 and self._heard:      # every third job says how far it is, and its first line
            line = LogLine(1.0, "INFO", "begun")
            self._node.on_progress(ProgressUpdate(work.key, index, (1.0, 2.0, work.task, 1.0), [line], 1))

    def _is_late(self, work: Work) -> bool:
        return work.expires_ms != 0 and self._wall_ms() >= work.expires_ms

    def _end(self, work: Work, index: int, outcome: Outcome) -> None:
        if self._frozen:
            self._ended_frozen.append((work, index, outcome))
            return
        if outcome.error == KILLS_ITS_RUNNER:
            self._crash(work, index)
            return
        if self._remembering is not None:
            outcome = self._remembering.end(work, index, outcome)
        self._over(work, index)
        self._suspects.ended(job_number(work.key, index))
        self._record("end", work, index, outcome)
        if self._heard:
            self._pump(work.mode)
            self._node.on_outcomes([(work.key, outcome)])

    def _over(self, work: Work, index: int) -> None:
        _, timer = self._running.pop((work.key, index))
        timer.cancel()          # a run before it under the same number may have ended while this machine was frozen
        if self._remembering is not None:
            self._remembering.stop(work.key, index)
        if (work.key, index) in self._apart:
            self._apart.discard((work.key, index))
        else:
            self._used[work.mode] -= 1

    def _crash(self, work: Work, index: int) -> None:
        """The process of a job dies, and with it, unless it is a suspect's, all others on the event loop."""
        apart = (work.key, index) in self._apart
        company = [(work, index)] if apart else [
            (beside, other) for (key, other), (beside, _) in self._running.items()
            if beside.mode == "async" and (key, other) not in self._apart
        ]
        for beside, other in company:
            self._running[beside.key, other][1].cancel()
            self._over(beside, other)
        started: list[Sent] = [(beside, (other, b"")) for beside, other in company]
        runner: Any = SimpleNamespace(
            kind="async", role="apart" if apart else "regular", doomed={}, told_to_end=set(), killed_for_job=False,
            blocked=False, epitaph=lambda status: "runner died",
        )
        outcomes = self._inquest.hold(runner, started, 11) if self._heard else []
        blamed = {(key, outcome.index): outcome for key, outcome in outcomes}
        for beside, other in company:
            outcome = blamed.get((beside.key, other))
            self._record("crashed" if outcome is None else "end", beside, other, outcome, outcome is not None)
        if self._heard:
            self._pump("async")
            self._node.on_outcomes(outcomes)

    def _requeue(self, mode: Mode, jobs: list[Sent]) -> None:
        self._waiting[mode].extendleft((work, job[0]) for work, job in reversed(jobs))

    def cancel(self, key: int, index: int) -> None:
        """What waits is cancelled at once, and so is what runs on a loop; a sync job runs to its end."""
        cancelled = [(key, Outcome(index, "cancelled", error="cancelled"))]
        for waiting in self._waiting.values():
            for entry in waiting:
                if (entry[0].key, entry[1]) == (key, index):
                    waiting.remove(entry)
                    asyncio.get_running_loop().call_soon(self._node.on_outcomes, cancelled)
                    return
        if self._suspects.remove(job_number(key, index)):
            asyncio.get_running_loop().call_soon(self._node.on_outcomes, cancelled)
            return
        work, timer = self._running.get((key, index), (None, None))
        if work is not None and timer is not None and work.mode == "async":
            timer.cancel()
            self._suspects.ended(job_number(key, index))
            self._stopped(work, index)
            asyncio.get_running_loop().call_soon(self._node.on_outcomes, cancelled)
            self._pump(work.mode)

    def _stopped(self, work: Work, index: int) -> None:
        self._over(work, index)
        self._record("killed", work, index, None)

    @property
    def stand(self) -> bool:
        return True

    def report(self, work: Work, index: int, error: str) -> None:
        return

    def keeps(self, key: int) -> bool:
        return self._suspects.has(key)

    def begins(self, mode: Mode) -> bool:
        return self._frozen         # (who would ask stands still as well, and asks when it goes on)

    def busy(self, mode: Mode, queue: str) -> bool:
        return self._used[mode] >= self.capacity.get(mode, 0) and not self._may_lend(mode, queue)

    def withdraw(self, keys: Iterable[int] | None) -> list[tuple[int, list[int]]]:
        if self._frozen:
            return []               # who would ask stands still as well
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
        for key, indexes in self._suspects.withdraw(wanted).items():
            taken.setdefault(key, []).extend(indexes)
        return list(taken.items())

    def running(self) -> list[tuple[int, int]]:
        return list(self._running)

    def lease(self, lease_id: int, deadline_boottime: float) -> None:
        """As the guard does: at the deadline everything that runs is killed."""
        self._deadline = deadline_boottime
        if self._guard is not None:
            self._guard.cancel()
        loop = asyncio.get_running_loop()
        self._guard = loop.call_later(max(deadline_boottime - self._clock(), 0.0), self._check_deadline)
        for mode in self._waiting:
            self._pump(mode)

    def no_lease(self) -> None:
        self._kill()

    def _kill(self) -> None:
        self._on_kill()
        for (_, index), (work, timer) in list(self._running.items()):
            timer.cancel()
            self._stopped(work, index)
        self._suspects.clear()
        for waiting in self._waiting.values():
            waiting.clear()

    def orphan(self) -> None:
        """The node's process has died: what runs has nobody to tell, and nothing new comes."""
        self._heard = False
        for key, index in self._running if self._remembering is not None else ():
            self._remembering.stop(key, index)
        for waiting in self._waiting.values():
            waiting.clear()

    def die(self) -> None:
        """As the guard does when the node's process has died."""
        self.dead = True
        self._kill()

    async def kill_all(self) -> None:
        await self._thawed.wait()       # the guard does it
        self._kill()

    async def stop(self, grace_s: float) -> None:
        if not self._heard:
            return              # a dead node stops nothing: its guard does
        self.dead = True
        if self._guard is not None:
            self._guard.cancel()
        self._kill()
