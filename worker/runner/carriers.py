"""Which task runs which `async def` job. They begin in the order in which they came: so do the permits to start them.

To make a task, and to let the loop begin it, takes longer than most jobs do. So a task that has run a job to its end
without a pause, and that the job has left as it was, runs the next one. As soon as a job waits for something its task
is its own, and what is behind it gets a task each, as many as may have begun: then they all wait at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from operator import is_
from sys import getrefcount
from typing import Any
from weakref import getweakrefcount

from ..channel.deadline import now
from ..channel.frames import Work
from ..channel.job_numbers import INDEX_BITS
from .context import running
from .execution import Call

BREATH_S = 0.02
"""After this long the loop looks round before the next job begins: for frames, cancels, and jobs that can go on."""

Run = Callable[[Call, tuple[Work, int], bytes, int], Coroutine[Any, Any, float]]


class Carriers:
    """Of one runner, on its loop. `run` runs a job, given its call, what `running` is to be in it, its payload and its
    number; it says when it ended, and never raises. `at_once`: so many may have begun and not ended."""

    def __init__(self, run: Run, at_once: int) -> None:
        self._run = run
        self._at_once = at_once
        self._stalled = False           # there are as many: those that wait begin when one has ended
        self._loop = asyncio.get_running_loop()
        self._base = copy_context()             # as start hooks have left it
        self._waiting: deque[tuple[Call, list[tuple[int, bytes]]]] = deque()        # of each bundle, the last job first
        self._turn: object | None = None        # of the carrier that begins what waits; None: there is none
        self.tasks: dict[int, asyncio.Task[Any]] = {}
        """By job number: of those that have begun, or have a task in which they will."""

    def __bool__(self) -> bool:
        """Whether there are jobs."""
        return bool(self.tasks or self._waiting)

    def add(self, call: Call, *, spare: bool = False) -> None:
        """The jobs of its work, to begin after what came before; see `begin`. `spare`: at once, however many there are,
        where nothing came before."""
        jobs, call.work.jobs = call.work.jobs, []
        if spare and not self._waiting and self._turn is None:
            for index, payload in jobs:
                self._alone(call, index, payload)
        elif jobs:
            jobs.reverse()
            self._waiting.append((call, jobs))

    def over(self, number: int) -> None:
        """A job has ended."""
        del self.tasks[number]
        if self._stalled:
            self.begin()

    def is_waiting(self, number: int) -> bool:
        """Whether it will begin, and has no task yet."""
        return any(
            number == call.work.key << INDEX_BITS | index for call, jobs in self._waiting for index, _ in jobs
        )

    def forget_waiting(self) -> list[int]:
        """They shall not begin. Returns their numbers."""
        numbers = [call.work.key << INDEX_BITS | index for call, jobs in self._waiting for index, _ in jobs]
        for _, jobs in self._waiting:
            jobs.clear()
        self._waiting.clear()
        return numbers

    def begin(self) -> None:
        """What was added begins in the next turn of the loop, if it does not wait for a carrier that is under way."""
        if self._turn is not None or not self._waiting:
            return
        self._stalled = len(self.tasks) >= self._at_once
        if self._stalled:
            return
        call, jobs = self._waiting[0]
        if len(self._waiting) == len(jobs) == 1:        # nothing to share its task with
            self._waiting.clear()
            self._alone(call, *jobs.pop())
            return
        turn = self._turn = object()
        self._task(self._carry(turn), call.work.task)

    def _alone(self, call: Call, index: int, payload: bytes) -> None:
        work = call.work
        number = work.key << INDEX_BITS | index
        self.tasks[number] = self._task(self._run(call, (work, index), payload, number), work.task)

    def _task(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """(Not by the loop's factory of tasks: an application's may begin them at once.)"""
        return self._base.run(lambda: asyncio.Task(coroutine, loop=self._loop, name=name))

    async def _carry(self, turn: object) -> None:
        """Jobs, one after another, while none of them pauses."""
        self._loop.call_soon(self._look, turn)
        me = asyncio.current_task()
        assert me is not None
        tasks, waiting, run, until = self.tasks, self._waiting, self._run, now() + BREATH_S
        try:
            running.set(None)
            values, at = _values()
            references, others = getrefcount(me), getweakrefcount(me)
            while waiting:
                call, jobs = waiting[0]
                work = call.work
                name, base = work.task, work.key << INDEX_BITS
                if me.get_name() != name:
                    me.set_name(name)
                while jobs:
                    index, payload = jobs.pop()
                    tasks[base | index] = me
                    values[at] = job = (work, index)
                    ended = await run(call, job, payload, base | index)
                    if self._turn is not turn:
                        return              # it has paused, and others have begun meanwhile
                    if getrefcount(me) != references or getweakrefcount(me) != others:
                        return              # somebody has kept it, if only as a key
                    if ended >= until or not _is_as_new(me, name, values):
                        return
                waiting.popleft()
        finally:
            if self._turn is turn:
                self._turn = None
                if waiting and not waiting[0][1]:
                    waiting.popleft()
                self.begin()

    def _look(self, turn: object) -> None:
        """Behind the first step of a carrier. If it has not come to its end, its job waits for something."""
        if self._turn is not turn:
            return
        self._turn = None
        while self._waiting:
            call, jobs = self._waiting[0]
            while jobs:
                if len(self.tasks) >= self._at_once:
                    self._stalled = True
                    return
                self._alone(call, *jobs.pop())
            self._waiting.popleft()


def _values() -> tuple[list[Any], int]:
    """Of all context variables as they are here; and which of them is `running`."""
    context = copy_context()
    return list(context.values()), list(context).index(running)


def _is_as_new(task: asyncio.Task[Any], name: str, values: list[Any]) -> bool:
    """Whether the job that ran in it has set no context variable and no name, and has asked neither for its end nor to
    be told of it. (None of these variables can have given its place to another: what was set before the task was made
    cannot be taken back in it.)"""
    context = copy_context()
    return (
        len(context) == len(values) and all(map(is_, context.values(), values))
        and task._callbacks is None
        and not task._must_cancel           # `cancelling` forgets what was taken back
        and task.get_name() == name
    )
