"""Jobs that are run together: a batch task's function gets what has come for it, and gives each job its own outcome.

Each job is an `async def` job like any other, with its slot, its clock and its middleware; what it awaits is its place
in the batch. So whatever befalls one of them (a retry, a limit, a cancellation, the loss of the runner) is as ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, Protocol

from rota.client.model import TaskInfo
from rota.client.tasks.batches import outcomes_of, unwrapped
from rota.client.tasks.naming import mode_of

from .context import Runner, running

KEPT_MAX = 10_000
"""Queues of which batches are gathered: of more, those that have nothing to do are forgotten."""


class Batched(Protocol):
    name: str
    function: Callable[..., Any]
    info: TaskInfo


class Batches:
    """Of one runner: what gathers the jobs of each task and queue."""

    def __init__(self) -> None:
        self._gathering: dict[tuple[str, str], _Gathering] = {}

    def of(self, task: Batched, queue: str) -> Callable[[Any], Any]:
        """What to call for one job."""
        found = self._gathering.get((task.name, queue))
        if found is None:
            if len(self._gathering) >= KEPT_MAX:
                self._gathering = {key: one for key, one in self._gathering.items() if one.is_busy}
            function: Callable[[list[Any]], Any] = vars(task.function)["batch"]
            found = self._gathering[task.name, queue] = _Gathering(
                function, task.info.batch, task.info.batch_wait_s
            )
        return found.run


class _Batch:
    """Jobs that are run together, once they are enough or have waited for long enough."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.places: list[asyncio.Future[Any]] = []
        self.run: asyncio.Task[None] | None = None
        self.leaving = 0


class _Gathering:
    def __init__(self, function: Callable[[list[Any]], Any], size: int, wait_s: float) -> None:
        self._function = function
        self._is_async = mode_of(function) == "async"
        self._size = size
        self._wait_s = wait_s
        self._next = _Batch()
        self._timer: asyncio.TimerHandle | None = None
        self._runs: set[asyncio.Task[None]] = set()

    @property
    def is_busy(self) -> bool:
        return bool(self._next.items or self._runs)

    async def run(self, item: Any) -> Any:
        """One job: its result, or what became of it."""
        batch, place = self._next, asyncio.get_running_loop().create_future()
        batch.items.append(item)
        batch.places.append(place)
        if len(batch.items) >= self._size:
            self._go()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._wait_s, self._go)
        try:
            return await asyncio.shield(place)
        except asyncio.CancelledError:
            await self._leave(batch, place)
            raise

    async def _leave(self, batch: _Batch, place: asyncio.Future[Any]) -> None:
        """A job is to end. If its batch has not begun, it goes without it. A job that people want to be gone leaves the
        others behind; one whose time is over ends with them: it must not be tried again while the function is at it
        yet."""
        job = running.get()
        place.add_done_callback(lambda done: done.cancelled() or done.exception())
        if batch.run is None:
            at = batch.places.index(place)
            del batch.items[at], batch.places[at]
            return
        if job is not None and Runner.wanted_gone is not None and Runner.wanted_gone(*job):
            return
        batch.leaving += 1
        if batch.leaving == len(batch.places):
            batch.run.cancel()          # (a thread cannot be: its runner is killed after `cancel_grace`)
        await asyncio.wait([batch.run])

    def _go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._next = self._next, _Batch()
        if not batch.items:             # all of them have left
            return
        batch.run = asyncio.get_running_loop().create_task(self._run(batch), name="batch", context=Context())
        self._runs.add(batch.run)
        batch.run.add_done_callback(self._runs.discard)

    async def _run(self, batch: _Batch) -> None:
        items = list(batch.items)
        try:
            if self._is_async:
                given = await self._function(items)
            else:
                given = await _on_thread(self._function, items)
            outcomes = outcomes_of(self._function, given, len(batch.places))
        except BaseException as error:
            for place in batch.places:
                if not place.done():
                    place.set_exception(_as_job_error(error))
            return
        for place, outcome in zip(batch.places, outcomes, strict=True):
            try:
                value = unwrapped(outcome)
            except BaseException as error:
                place.set_exception(_as_job_error(error))
            else:
                place.set_result(value)


async def _on_thread(function: Callable[[list[Any]], Any], items: list[Any]) -> Any:
    """To its end, also if whoever waits is told to go: a thread cannot be stopped."""
    thread = asyncio.ensure_future(asyncio.to_thread(function, items))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait([thread])
        raise


def _as_job_error(error: BaseException) -> BaseException:
    """A future takes no StopIteration, and a cancellation of the batch is none of its jobs."""
    if isinstance(error, StopIteration | asyncio.CancelledError):
        return RuntimeError(f"its batch ended with {type(error).__name__}")
    return error
