"""Runners without processes: plain functions on threads, `async def` jobs on the node's own event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, cast

from msgspec.structs import replace

from rota.client.calls.pickling import load_function
from rota.client.model import Mode, Outcome, QueueInfo, TaskInfo
from rota.client.process.threads import Future
from rota.client.tasks import queues
from rota.client.tasks import task as tasks
from rota.worker.channel.frames import ProgressUpdate, Question, Reply, Work
from rota.worker.pool.interface import NodeSide
from rota.worker.pool.questions import Questions
from rota.worker.pool.time_limits import CANCEL_GRACE_S
from rota.worker.runner import hooks, resources, steps
from rota.worker.runner.around import around_of
from rota.worker.runner.batches import Batches
from rota.worker.runner.context import Runner, running
from rota.worker.runner.execution import Call, Runnable
from rota.worker.runner.process import keep_of
from rota.worker.runner.telling import heard, telling
from rota.worker.runner.waiting import awaited

Slot = tuple[int, int]


class LocalRunners:
    """The `Runners` seam. A plain function cannot be killed here: after its timeout its outcome is decided, and the
    thread is left to itself."""

    def __init__(self, capacity: dict[Mode, int]) -> None:
        self.tasks: dict[str, TaskInfo] = {}
        self.queues: dict[str, QueueInfo] = {}
        self.capacity = capacity
        self.spare: dict[Mode, int] = {}
        self.trouble: str | None = None
        self._log = Log()
        self._waiting: dict[Mode, deque[tuple[Work, int, bytes]]] = {"async": deque(), "sync": deque()}
        self._running: dict[Slot, tuple[Work, Callable[[], object]]] = {}
        self._used: dict[Mode, int] = {"async": 0, "sync": 0}
        self._to_stop: set[Slot] = set()
        self._batches = Batches()

    async def start(self, node: NodeSide) -> None:
        self._node = node
        self._questions = Questions(node)
        self._loop = asyncio.get_running_loop()
        Runner.ask = self._ask
        steps.install()
        Runner.wanted_gone = lambda work, index: (work.key, index) in self._to_stop
        self.tasks = {name: task.described for name, task in tasks.registry.items()}
        self.queues = dict(queues.declared)
        telling.send = self._progressed
        logging.getLogger().addHandler(self._log)

    def submit(self, work: Work) -> None:
        self._waiting[work.mode].extend((work, index, payload) for index, payload in work.jobs)
        self._fill(work.mode)

    def cancel(self, key: int, index: int) -> None:
        started = self._running.get((key, index))
        if started is not None:
            work, stop = started
            self._to_stop.add((key, index))
            stop()
            info, outcome = self.tasks.get(work.task), Outcome(index, "cancelled", error="cancelled")
            grace_s = CANCEL_GRACE_S if info is None else info.cancel_grace_s
            self._loop.call_later(grace_s, self._ended, work, outcome)
            return
        for waiting in self._waiting.values():
            for job in [job for job in waiting if (job[0].key, job[1]) == (key, index)]:
                waiting.remove(job)
                self._node.on_outcomes([(key, Outcome(index, "cancelled", error="cancelled"))])

    @property
    def stand(self) -> bool:
        return True

    def report(self, work: Work, index: int, error: str) -> None:
        token = running.set((work, index))
        hooks.report_lost(work, index, error)
        running.reset(token)

    def keeps(self, key: int) -> bool:
        return False

    def begins(self, mode: Mode) -> bool:
        return False

    def busy(self, mode: Mode, queue: str) -> bool:
        return self._used[mode] >= self.capacity[mode]

    def withdraw(self, keys: Iterable[int] | None) -> list[tuple[int, list[int]]]:
        wanted = None if keys is None else set(keys)
        taken: dict[int, list[int]] = {}
        for mode, waiting in self._waiting.items():
            kept: deque[tuple[Work, int, bytes]] = deque()
            for job in waiting:
                if wanted is None or job[0].key in wanted:
                    taken.setdefault(job[0].key, []).append(job[1])
                else:
                    kept.append(job)
            self._waiting[mode] = kept
        return list(taken.items())

    def running(self) -> list[Slot]:
        return list(self._running)

    def lease(self, lease_id: int, deadline_boottime: float) -> None:
        return

    def no_lease(self) -> None:
        return

    async def kill_all(self) -> None:
        self.withdraw(None)
        for _, end in self._running.values():
            end()
        self._running.clear()
        self._used = {"async": 0, "sync": 0}

    async def stop(self, grace_s: float) -> None:
        await self.kill_all()
        self._questions.close()
        telling.send = None
        logging.getLogger().removeHandler(self._log)
        await resources.close()
        await asyncio.to_thread(resources.close_blocking)

    # -- one job -----------------------------------------------------------------------------------------------------

    def _fill(self, mode: Mode) -> None:
        waiting = self._waiting[mode]
        while waiting and self._used[mode] < self.capacity[mode]:
            self._used[mode] += 1
            work, index, payload = waiting.popleft()
            call = call_of(work)
            if call.task is not None and call.task.info.batch:
                call.function = self._batches.of(call.task, work.queue)
            timeout_s = call.timeout_s
            end = (self._start_async if mode == "async" else self._start_sync)(call, index, payload)
            self._running[work.key, index] = (work, end)
            if timeout_s is not None:
                self._loop.call_later(timeout_s, self._timed_out, call, index, timeout_s)

    def _start_async(self, call: Call, index: int, payload: bytes) -> Callable[[], object]:
        began = time.monotonic()

        async def run() -> None:
            try:
                outcome = await run_async(call, index, payload)
            except asyncio.CancelledError:
                if (call.work.key, index) not in self._to_stop:
                    raise               # it timed out, or all is over
                outcome = Outcome(index, "cancelled", error="cancelled")
            self._ended(call.work, replace(outcome, ran_s=time.monotonic() - began))

        return self._loop.create_task(run(), name=call.work.task).cancel

    def _start_sync(self, call: Call, index: int, payload: bytes) -> Callable[[], object]:
        def run() -> None:
            began = time.monotonic()
            outcome = copy_context().run(run_sync, call, index, payload)
            outcome = replace(outcome, ran_s=time.monotonic() - began)
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._ended, call.work, outcome)

        threading.Thread(target=run, name=call.work.task, daemon=True).start()
        return lambda: None

    def _timed_out(self, call: Call, index: int, timeout_s: float) -> None:
        started = self._running.get((call.work.key, index))
        if started is not None and started[0] is call.work:
            started[1]()
            self._ended(call.work, call.failed(index, TimeoutError(f"timed out after {timeout_s:g} s")))

    def _ask(self, question: Question) -> Future[Reply]:
        """From the loop, or from a job's thread."""
        future: Future[Reply] = Future()
        asker = _Asker(future)
        self._loop.call_soon_threadsafe(self._questions.asked, asker, [question])
        return future

    def _progressed(self, update: ProgressUpdate) -> None:
        """From the loop, or from a job's thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._node.on_progress, update)

    def _ended(self, work: Work, outcome: Outcome) -> None:
        if telling.used:
            telling.ended(work, outcome.index)
            self._loop.call_soon(self._over, work, outcome)     # behind what it has said
        else:
            self._over(work, outcome)

    def _over(self, work: Work, outcome: Outcome) -> None:
        started = self._running.get((work.key, outcome.index))
        if started is None or started[0] is not work:
            return              # it was cancelled or timed out, and has had its outcome
        del self._running[work.key, outcome.index]
        self._to_stop.discard((work.key, outcome.index))
        self._used[work.mode] -= 1
        self._node.on_outcomes([(work.key, outcome)])
        self._fill(work.mode)


class _Asker:
    """One job that asks one thing."""

    number = 0

    def __init__(self, future: Future[Reply]) -> None:
        self._future = future

    def answer(self, reply: Reply) -> None:
        if self._future.set_running_or_notify_cancel():
            self._future.set_result(reply)

    def has(self, key: int, index: int) -> bool:
        return True


class Log(logging.Handler):
    """Keeps what jobs log, where their task says so. (Runners have a way that no configuration turns off.)"""

    def emit(self, record: logging.LogRecord) -> None:
        heard(record, keep_of)


def call_of(work: Work) -> Call:
    """The task of a work, by name or from code that was shipped."""
    task = cast("Runnable | None", tasks.registry.get(work.task))
    if work.function is not None:
        function = load_function(work.function)
        return Call(work, function, task, "", around_of(work.task, function, None))
    if task is None:
        return Call(work, None, None, f"no task {work.task} in the modules that this test has imported")
    return Call(work, task.function, task, "", around_of(work.task, task.function, task))


def run_sync(call: Call, index: int, payload: bytes) -> Outcome:
    """One job, here and now."""
    if call.function is None:
        return call.not_run(index)
    token = running.set((call.work, index))
    try:
        if call.is_late:
            return call.expired(index)
        args, kwargs = call.arguments(payload)
        if call.around is not None:
            result = call.around.blocking(args, kwargs, call.codec)
        else:
            result = call.function(*args, **kwargs)
        if hasattr(type(result), "__await__"):
            result = _run(awaited(result))
    except BaseException as error:
        return call.failed(index, error)
    finally:
        running.reset(token)
    return call.succeeded(index, result)


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """As `asyncio.run`, also in a test that is a coroutine itself."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as another:
        return another.submit(copy_context().run, asyncio.run, coroutine).result()


async def run_async(call: Call, index: int, payload: bytes) -> Outcome:
    """One job, on this event loop."""
    if call.function is None:
        return call.not_run(index)
    token = running.set((call.work, index))
    try:
        if call.is_late:
            return call.expired(index)
        args, kwargs = call.arguments(payload)
        around, function = call.around, call.function
        started = function(*args, **kwargs) if around is None else around.on_loop(args, kwargs, call.codec)
        result = await awaited(started)
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return call.failed(index, error)
    finally:
        running.reset(token)
    return call.succeeded(index, result)
