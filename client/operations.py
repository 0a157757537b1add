"""What people do to a running cluster, as methods of the clients: settings of queues, the failed set, cancelling.

Each is one POST to a node's HTTP port (`rota.cluster.port.verbs`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from . import options
from .errors import InvalidJob
from .ids import normal, parse_job_id
from .views import FailedFilter, QueueSettings

T = TypeVar("T")


class Emptied(msgspec.Struct):
    emptied: int


class Head(msgspec.Struct):
    id: str


class Count(msgspec.Struct):
    count: int


class Cancelled(msgspec.Struct):
    outcome: str


class Unset:
    """What was not given, where None means something."""


UNSET = Unset()


class AsyncOperations:
    """Methods of `AsyncClient`."""

    async def _post(self, path: str, body: object, kind: type[T]) -> T:
        raise NotImplementedError

    async def pause(self, queue: str) -> QueueSettings:
        """Start no further jobs of a queue; those that run go on."""
        return await self._post(*_set_queue(queue, {"paused": True}))

    async def resume(self, queue: str) -> QueueSettings:
        """Start the jobs of a paused queue again. Returns its settings."""
        return await self._post(*_set_queue(queue, {"paused": False}))

    async def set_queue(
        self, queue: str, *, paused: bool | None = None, serial: bool | None = None,
        max_concurrency: int | Unset | None = UNSET,
    ) -> QueueSettings:
        """Change settings of a queue; what is not given stays. `max_concurrency=None` lifts the limit. Returns all."""
        return await self._post(*_set_queue(queue, _changes(paused, serial, max_concurrency)))

    async def empty_queue(self, queue: str, expected: int | None) -> int:
        """Cancel all waiting jobs of a queue; returns how many. Unless there are as many as `expected`, nothing is done
        and `InvalidJob` says how many there are; None: however many."""
        return (await self._post(f"{_queue(queue)}/empty", {"expected": expected}, Emptied)).emptied

    async def retry_head(self, queue: str) -> str:
        """Run the failed job at the head of a serial queue again, now; returns its id."""
        return (await self._post(f"{_queue(queue)}/head", {"verb": "retry"}, Head)).id

    async def skip_head(self, queue: str) -> str:
        """Put the failed job at the head of a serial queue into the failed set, and go on; returns its id."""
        return (await self._post(f"{_queue(queue)}/head", {"verb": "skip"}, Head)).id

    async def retry_failed(
        self, ids: str | Iterable[str] = (), *, queue: str = "", task: str = "", error: str = "", all: bool = False
    ) -> int:
        """Run failed jobs again, from their first attempt: those that fit everything given, or all. `error` is a part
        of the error's text. Returns how many; `InvalidJob` if none fits."""
        return (await self._post("/v1/failed/retry", _filter(ids, queue, task, error, all), Count)).count

    async def delete_failed(
        self, ids: str | Iterable[str] = (), *, queue: str = "", task: str = "", error: str = "", all: bool = False
    ) -> int:
        """Forget failed jobs; as `retry_failed`."""
        return (await self._post("/v1/failed/delete", _filter(ids, queue, task, error, all), Count)).count

    async def cancel(self, job_id: str) -> str:
        """Cancel a job, wherever it is. See `JobHandle.cancel`."""
        return (await self._post(_cancel(job_id), {}, Cancelled)).outcome


class Operations:
    """Methods of `Client`. See `AsyncOperations`."""

    def _post(self, path: str, body: object, kind: type[T]) -> T:
        raise NotImplementedError

    def pause(self, queue: str) -> QueueSettings:
        """Start no further jobs of a queue; those that run go on."""
        return self._post(*_set_queue(queue, {"paused": True}))

    def resume(self, queue: str) -> QueueSettings:
        """Start the jobs of a paused queue again. Returns its settings."""
        return self._post(*_set_queue(queue, {"paused": False}))

    def set_queue(
        self, queue: str, *, paused: bool | None = None, serial: bool | None = None,
        max_concurrency: int | Unset | None = UNSET,
    ) -> QueueSettings:
        """See `AsyncOperations.set_queue`."""
        return self._post(*_set_queue(queue, _changes(paused, serial, max_concurrency)))

    def empty_queue(self, queue: str, expected: int | None) -> int:
        """See `AsyncOperations.empty_queue`."""
        return self._post(f"{_queue(queue)}/empty", {"expected": expected}, Emptied).emptied

    def retry_head(self, queue: str) -> str:
        """See `AsyncOperations.retry_head`."""
        return self._post(f"{_queue(queue)}/head", {"verb": "retry"}, Head).id

    def skip_head(self, queue: str) -> str:
        """See `AsyncOperations.skip_head`."""
        return self._post(f"{_queue(queue)}/head", {"verb": "skip"}, Head).id

    def retry_failed(
        self, ids: str | Iterable[str] = (), *, queue: str = "", task: str = "", error: str = "", all: bool = False
    ) -> int:
        """See `AsyncOperations.retry_failed`."""
        return self._post("/v1/failed/retry", _filter(ids, queue, task, error, all), Count).count

    def delete_failed(
        self, ids: str | Iterable[str] = (), *, queue: str = "", task: str = "", error: str = "", all: bool = False
    ) -> int:
        """See `AsyncOperations.delete_failed`."""
        return self._post("/v1/failed/delete", _filter(ids, queue, task, error, all), Count).count

    def cancel(self, job_id: str) -> str:
        """Cancel a job, wherever it is. See `JobHandle.cancel`."""
        return self._post(_cancel(job_id), {}, Cancelled).outcome


def _queue(queue: str) -> str:
    return f"/v1/queues/{quote(options.queue_name(queue), safe='')}"


def _set_queue(queue: str, changes: dict[str, Any]) -> tuple[str, dict[str, Any], type[QueueSettings]]:
    return _queue(queue), changes, QueueSettings


def _changes(paused: bool | None, serial: bool | None, max_concurrency: int | Unset | None) -> dict[str, Any]:
    changes: dict[str, Any] = {"paused": paused, "serial": serial}
    changes = {name: value for name, value in changes.items() if value is not None}
    if not isinstance(max_concurrency, Unset):
        changes["max_concurrency"] = options.limit(max_concurrency, "max_concurrency")
    return changes


def _filter(ids: str | Iterable[str], queue: str, task: str, error: str, all: bool) -> FailedFilter:
    wanted = FailedFilter([ids] if isinstance(ids, str) else list(ids), normal(queue), normal(task), error, all)
    for job_id in wanted.ids:
        _job(job_id)
    return wanted


def _cancel(job_id: str) -> str:
    bundle, index = _job(job_id)
    return f"/v1/jobs/{bundle}/{index}/cancel"


def _job(job_id: str) -> tuple[str, int]:
    try:
        return parse_job_id(job_id)
    except ValueError as error:
        raise InvalidJob(str(error)) from None
