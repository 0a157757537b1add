"""rota: a distributed job queue on etcd.

    import rota

    @rota.task
    def add(a: int, b: int) -> int:
        return a + b

    rota.connect("http://127.0.0.1:4100")       # or ROTA_URL
    add.enqueue(1, 2).result(timeout=10)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rota.client.api import AsyncClient, Client, connect
from rota.client.errors import (
    ConfigError,
    EnqueueError,
    EnqueueUnknown,
    InvalidJob,
    JobCancelled,
    JobError,
    JobFailed,
    JobTooLarge,
    JobUnknown,
    NotSerializable,
    Overloaded,
    PartlyEnqueued,
    ProtocolMismatch,
    ResultInvalid,
    ResultTimeout,
    RotaError,
    SignatureRefused,
    Unauthorized,
    UnknownTask,
    Unreachable,
)
from rota.client.handle import JobHandle, JobHandles
from rota.client.order import Call, NamedTask
from rota.client.tasks import AsyncTask, SyncTask, Task, task

if TYPE_CHECKING:
    from rota.worker.context import current_job as current_job

__all__ = [
    "AsyncClient",
    "AsyncTask",
    "Call",
    "Client",
    "ConfigError",
    "EnqueueError",
    "EnqueueUnknown",
    "InvalidJob",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobHandle",
    "JobHandles",
    "JobTooLarge",
    "JobUnknown",
    "NamedTask",
    "NotSerializable",
    "Overloaded",
    "PartlyEnqueued",
    "ProtocolMismatch",
    "ResultInvalid",
    "ResultTimeout",
    "RotaError",
    "SignatureRefused",
    "SyncTask",
    "Task",
    "Unauthorized",
    "UnknownTask",
    "Unreachable",
    "connect",
    "current_job",
    "task",
]


def __getattr__(name: str) -> Any:
    if name == "current_job":       # late: a producer needs nothing of the worker's room
        from rota.worker.context import current_job

        return current_job
    raise AttributeError(f"module 'rota' has no attribute {name!r}")
