"""What people do to a running cluster, as methods of the clients: settings of queues, the failed set, cancelling.

Each is one POST to a node's HTTP port (`rota.cluster.port.verbs`); those about many jobs (`…port.many`) begin an
operation there, and wait for its end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

import msgspec

from .. import ids
from ..errors import InvalidJob, Unreachable
from ..ids import normal, parse_job_id
from ..model import ON_FULLS, OnFull
from ..options import checks as options
from ..options import rates
from ..wire.views import FailedFilter, OperationView, QueueSettings

T = TypeVar("T")


class Head(msgspec.Struct):
    id: str


class Cancelled(msgspec.Struct):
    outcome: str


class Unset:
    """What was not given, where None means something."""


UNSET = Unset()


OnProgress: TypeAlias = Callable[[OperationView], None]
"""Called while an operation goes on, now and then, and once when it has ended."""

LOOK_S = 0.5
"""How often an operation that goes on is looked at."""

PATIENCE_S = 60.0
"""How long it may not be seen how an operation goes on: nodes, or their store, are away."""


class AsyncOperations:
    """Methods of `AsyncClient`."""

    async def _post(self, path: str, body: object, kind: type[T]) -> T:
        raise NotImplementedError

    async def _page(self, path: str, kind: type[T]) -> T:
        raise NotImplementedError

    async def pause(self, queue: str) -> QueueSettings:
        """Start no further jobs of a queue; those that run go on."""
        return await self._post(*_set_queue(queue, {"paused": True}))

    async def resume(self, queue: str) -> QueueSettings:
        """Start the jobs of a paused queue again. Returns its settings."""
        return await self._post(*_set_queue(queue, {"paused": False}))

    async def set_queue(
        self, queue: str, *, paused: bool | None = None, serial: bool | None = None,
        max_concurrency: int | Unset | None = UNSET, rate: str | Unset | None = UNSET,
        max_waiting: int | Unset | None = UNSET, on_full: OnFull | None = None,
    ) -> QueueSettings:
        """Change settings of a queue; what is not given stays. `max_concurrency=None`, `rate=None` and
        `max_waiting=None` lift these limits. `on_full`: "refuse" or "wait". Returns all."""
        return await self._post(*_set_queue(queue, _changes(
            paused, serial, max_concurrency, rate, max_waiting, on_full
        )))

    async def empty_queue(
        self, queue: str, expected: int | None, *, on_progress: OnProgress | None = None
    ) -> int:
        """Cancel all waiting jobs of a queue; returns how many. Unless there are as many as `expected`, nothing is done
        and `InvalidJob` says how many there are; None: however many.

        This and the other methods that take `on_progress` begin a bulk operation and wait for its end. It goes on
        whatever becomes of this client: `operation(id)` says how far it is, with the `id` that `on_progress` is told.
        """
        return await self._carry_out(f"{_queue(queue)}/empty", {"expected": expected}, on_progress)

    async def retry_head(self, queue: str) -> str:
        """Run the failed job at the head of a serial queue again, now; returns its id."""
        return (await self._post(f"{_queue(queue)}/head", {"verb": "retry"}, Head)).id

    async def skip_head(self, queue: str) -> str:
        """Put the failed job at the head of a serial queue into the failed set, and go on; returns its id."""
        return (await self._post(f"{_queue(queue)}/head", {"verb": "skip"}, Head)).id

    async def retry_failed(
        self, ids: str | Iterable[str] = (), *, queue: str = "", task: str = "", error: str = "", all: bool = False,
        on_progress: OnProgress | None = None,
    ) -> int:
        """Run failed jobs again, from their first attempt: those that fit everything given, or all. `error` is a part
        of the error's text. Returns how many; `InvalidJob` if none fits. The head of a serial queue that it blocks is
        run again at its place. For `on_progress` see `empty_queue`."""
        return await self._carry_out("/v1/failed/retry", _filter(ids, queue, task, error, all), on_progress)

    async def delete_failed(
        self, ids: str | Iterable[str] = (), *, queue: str = "", task: str = "", error: str = "", all: bool = False,
        on_progress: OnProgress | None = None,
    ) -> int:
        """Forget failed jobs; as `retry_failed`. A job that blocks a serial queue is not one of them: `skip_head`."""
        return await self._carry_out("/v1/failed/delete", _filter(ids, queue, task, error, all), on_progress)

    async def cancel(self, job_id: str) -> str:
        """Cancel a job, wherever it is. See `JobHandle.cancel`."""
        return (await self._post(_cancel(job_id), {}, Cancelled)).outcome

    async def cancel_many(
        self, *, queue: str = "", task: str = "", all: bool = False, on_progress: OnProgress | None = None
    ) -> int:
        """Cancel all jobs of a queue, of a task, or of both; or all there are: those that wait, are scheduled or are
        retried, and those that run, which are asked to stop. Returns how many; `InvalidJob` if none fits. For
        `on_progress` see `empty_queue`."""
        return await self._carry_out(*_cancel_many(queue, task, all), on_progress)

    async def operation(self, operation_id: str) -> OperationView:
        """How far a bulk operation is. Raises `OperationUnknown`; one that has ended is known for an hour."""
        return await self._page(_operation(operation_id, 0.0), OperationView)

    async def operations(self) -> list[OperationView]:
        """Bulk operations that have not ended, and those of the last hour; the newest first."""
        return await self._page("/v1/operations", list[OperationView])

    async def _carry_out(self, path: str, body: object, on_progress: OnProgress | None) -> int:
        view = await self._post(path, body, OperationView)
        follower = _Follower(view, on_progress)
        while not follower.is_over:
            try:
                follower.seen(await self._page(_operation(view.id, LOOK_S), OperationView))
            except Unreachable as error:
                await asyncio.sleep(follower.unseen(error))
        return follower.count


class Operations:
    """Methods of `Client`. See `AsyncOperations`."""

    def _post(self, path: str, body: object, kind: type[T]) -> T:
        raise NotImplementedError

    def _page(self, path: str, kind: type[T]) -> T:
        raise NotImplementedError

    def pause(self, queue: str) -> QueueSettings:
        """Start no further jobs of a queue; those that run go on."""
        return self._post(*_set_queue(queue, {"paused": True}))

    def resume(self, queue: str) -> QueueSettings:
        """Start the jobs of a paused queue again. Returns its settings."""
        return self._post(*_set_queue(queue, {"paused": False}))

    def set_queue(
        self, queue: str, *, paused: bool | None = None, serial: bool | None = None,
        max_concurrency: int | Unset | None = UNSET, rate: str | Unset | None = UNSET,
        max_waiting: int | Unset | None = UNSET, on_full: OnFull | None = None,
    ) -> QueueSettings:
        """See `AsyncOperations.set_queue`."""
        return self._post(*_set_queue(queue, _changes(
            paused, serial, max_concurrency, rate, max_waiting, on_full
        )))

    def empty_queue(self, queue: str, expected: int | None, *, on_progress: OnProgress | None = None) -> int:
        """See `AsyncOperations.empty_queue`."""
        return self._carry_out(f"{_queue(queue)}/empty", {"expected": expected}, on_progress)

    def retry_head(self, queue: str) -> str:
        """See `AsyncOperations.retry_head`."""
        return self._post(f"{_queue(queue)}/head", {"verb": "retry"}, Head).id

    def skip_head(self, queue: str) -> str:
        """See `AsyncOperations.skip_head`."""
        return self._post(f"{_queue(queue)}/head", {"verb": "skip"}, Head).id

    def retry_failed(
        self, ids: str | Iterable[str] = (), *, queue: str = "", task: str = "", error: str = "", all: bool = False,
        on_progress: OnProgress | None = None,
    ) -> int:
        """See `AsyncOperations.retry_failed`."""
        return self._carry_out("/v1/failed/retry", _filter(ids, queue, task, error, all), on_progress)

    def delete_failed(
        self, ids: str | Iterable[str] = (), *, queue: str = "", task: str = "", error: str = "", all: bool = False,
        on_progress: OnProgress | None = None,
    ) -> int:
        """See `AsyncOperations.delete_failed`."""
        return self._carry_out("/v1/failed/delete", _filter(ids, queue, task, error, all), on_progress)

    def cancel(self, job_id: str) -> str:
        """Cancel a job, wherever it is. See `JobHandle.cancel`."""
        return self._post(_cancel(job_id), {}, Cancelled).outcome

    def cancel_many(
        self, *, queue: str = "", task: str = "", all: bool = False, on_progress: OnProgress | None = None
    ) -> int:
        """See `AsyncOperations.cancel_many`."""
        return self._carry_out(*_cancel_many(queue, task, all), on_progress)

    def operation(self, operation_id: str) -> OperationView:
        """See `AsyncOperations.operation`."""
        return self._page(_operation(operation_id, 0.0), OperationView)

    def operations(self) -> list[OperationView]:
        """See `AsyncOperations.operations`."""
        return self._page("/v1/operations", list[OperationView])

    def _carry_out(self, path: str, body: object, on_progress: OnProgress | None) -> int:
        view = self._post(path, body, OperationView)
        follower = _Follower(view, on_progress)
        while not follower.is_over:
            try:
                follower.seen(self._page(_operation(view.id, LOOK_S), OperationView))
            except Unreachable as error:
                time.sleep(follower.unseen(error))
        return follower.count


class _Follower:
    """Who waits for the end of an operation."""

    def __init__(self, view: OperationView, on_progress: OnProgress | None) -> None:
        self._on_progress = on_progress
        self.seen(view)

    def seen(self, view: OperationView) -> None:
        self._view, self._seen_at = view, time.monotonic()
        if self._on_progress is not None and view.state != "refused":
            self._on_progress(view)
        if view.state == "refused":
            raise InvalidJob(view.why)

    def unseen(self, error: Unreachable) -> float:
        """How many seconds to wait before looking again."""
        if time.monotonic() > self._seen_at + PATIENCE_S:
            raise Unreachable(f"{error}. The operation goes on: look with `rota operations {self._view.id}`") from None
        return LOOK_S

    @property
    def is_over(self) -> bool:
        return self._view.is_over

    @property
    def count(self) -> int:
        return self._view.count


def _queue(queue: str) -> str:
    return f"/v1/queues/{quote(options.queue_name(queue), safe='')}"


def _set_queue(queue: str, changes: dict[str, Any]) -> tuple[str, dict[str, Any], type[QueueSettings]]:
    return _queue(queue), changes, QueueSettings


def _changes(
    paused: bool | None, serial: bool | None, max_concurrency: int | Unset | None, rate: str | Unset | None,
    max_waiting: int | Unset | None, on_full: OnFull | None,
) -> dict[str, Any]:
    changes: dict[str, Any] = {"paused": paused, "serial": serial}
    changes = {name: value for name, value in changes.items() if value is not None}
    if not isinstance(max_concurrency, Unset):
        changes["max_concurrency"] = options.limit(max_concurrency, "max_concurrency")
    if not isinstance(rate, Unset):
        changes["rate"] = rates.normal(rate)
    if not isinstance(max_waiting, Unset):
        changes["max_waiting"] = options.limit(max_waiting, "max_waiting")
    if on_full is not None:
        changes["on_full"] = options.one_of(on_full, ON_FULLS, "on_full")
    return changes


def _filter(ids: str | Iterable[str], queue: str, task: str, error: str, all: bool) -> FailedFilter:
    wanted = FailedFilter([ids] if isinstance(ids, str) else list(ids), normal(queue), normal(task), error, all)
    for job_id in wanted.ids:
        _job(job_id)
    return wanted


def _cancel_many(queue: str, task: str, all: bool) -> tuple[str, dict[str, Any]]:
    if bool(queue or task) == all:
        raise InvalidJob("which jobs? Say queue or task, or both; or all=True, and nothing else")
    return "/v1/jobs/cancel", {"queue": queue and options.queue_name(queue), "task": task, "all": all}


def _operation(operation_id: str, wait_s: float) -> str:
    return f"/v1/operations/{quote(operation_id, safe='')}?wait={wait_s:g}"


def _cancel(job_id: str) -> str:
    return f"/v1/jobs/{ids.job_id(*_job(job_id))}/cancel"


def _job(job_id: str) -> tuple[str, int]:
    try:
        return parse_job_id(job_id)
    except ValueError as error:
        raise InvalidJob(str(error)) from None
