"""rota: a distributed job queue on etcd.

    import rota

    @rota.task
    def add(a: int, b: int) -> int:
        return a + b

    rota.connect("http://127.0.0.1:4100")       # or ROTA_URL
    add.enqueue(1, 2).result(timeout=10)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rota.client.calls import default
from rota.client.calls.handle import JobHandle, JobHandles
from rota.client.calls.order import Call
from rota.client.calls.outgoing import Outgoing, before_enqueue
from rota.client.errors import (
    ClientClosed,
    ConfigError,
    EnqueueError,
    EnqueueUnknown,
    FlowStuck,
    FlowUnknown,
    InvalidJob,
    JobCancelled,
    JobError,
    JobExists,
    JobExpired,
    JobFailed,
    JobTooLarge,
    JobUnknown,
    KeyMissing,
    NotInJob,
    NotSerializable,
    OffloadUnavailable,
    OperationUnknown,
    Overloaded,
    PartlyEnqueued,
    ProtocolMismatch,
    QueueFull,
    ResultInvalid,
    ResultTimeout,
    RotaError,
    SignatureRefused,
    Unauthorized,
    UnknownTask,
    Unreachable,
)
from rota.client.options import backoff
from rota.client.options.retries import Retry, Snooze
from rota.client.tasks.dependencies import Depends
from rota.client.tasks.named import NamedTask
from rota.client.tasks.queues import Queue
from rota.client.tasks.task import AsyncTask, SyncTask, Task, task
from rota.client.tasks.workers import Worker
from rota.client.transports.transport import installed
from rota.client.wire.views import FlowView, JobEvent, LogLine, LogView, ProgressView

if TYPE_CHECKING:
    from rota.client.api.clients import AsyncClient, Client
    from rota.client.api.flows import Flow, FlowHandle
    from rota.client.api.pipeline import pipeline
    from rota.client.api.shortcuts import connect, flow, flow_handle, handle
    from rota.client.wire.encryption import encrypt
    from rota.worker.runner.around import around_job
    from rota.worker.runner.context import Cancelled, JobContext, check_cancelled, current_flow, current_job, touch
    from rota.worker.runner.hooks import on_error, on_runner_start, on_runner_stop
    from rota.worker.runner.steps import sleep, step
    from rota.worker.runner.telling import progress

__all__ = [
    "AsyncClient",
    "AsyncTask",
    "Call",
    "Cancelled",
    "Client",
    "ClientClosed",
    "ConfigError",
    "Depends",
    "EnqueueError",
    "EnqueueUnknown",
    "Flow",
    "FlowHandle",
    "FlowStuck",
    "FlowUnknown",
    "FlowView",
    "InvalidJob",
    "JobCancelled",
    "JobContext",
    "JobError",
    "JobEvent",
    "JobExists",
    "JobExpired",
    "JobFailed",
    "JobHandle",
    "JobHandles",
    "JobTooLarge",
    "JobUnknown",
    "KeyMissing",
    "LogLine",
    "LogView",
    "NamedTask",
    "NotInJob",
    "NotSerializable",
    "OffloadUnavailable",
    "OperationUnknown",
    "Outgoing",
    "Overloaded",
    "PartlyEnqueued",
    "ProgressView",
    "ProtocolMismatch",
    "Queue",
    "QueueFull",
    "ResultInvalid",
    "ResultTimeout",
    "Retry",
    "RotaError",
    "SignatureRefused",
    "Snooze",
    "SyncTask",
    "Task",
    "Unauthorized",
    "UnknownTask",
    "Unreachable",
    "Worker",
    "around_job",
    "backoff",
    "before_enqueue",
    "check_cancelled",
    "connect",
    "current_flow",
    "current_job",
    "encrypt",
    "flow",
    "flow_handle",
    "handle",
    "on_error",
    "on_runner_start",
    "on_runner_stop",
    "pipeline",
    "progress",
    "sleep",
    "step",
    "task",
    "touch",
]


_LATE = {
    "AsyncClient": "rota.client.api.clients",
    "Cancelled": "rota.worker.runner.context",
    "Client": "rota.client.api.clients",
    "Flow": "rota.client.api.flows",
    "FlowHandle": "rota.client.api.flows",
    "JobContext": "rota.worker.runner.context",
    "around_job": "rota.worker.runner.around",
    "check_cancelled": "rota.worker.runner.context",
    "connect": "rota.client.api.shortcuts",
    "encrypt": "rota.client.wire.encryption",
    "handle": "rota.client.api.shortcuts",
    "current_flow": "rota.worker.runner.context",
    "flow": "rota.client.api.shortcuts",
    "flow_handle": "rota.client.api.shortcuts",
    "current_job": "rota.worker.runner.context",
    "on_error": "rota.worker.runner.hooks",
    "on_runner_start": "rota.worker.runner.hooks",
    "on_runner_stop": "rota.worker.runner.hooks",
    "pipeline": "rota.client.api.pipeline",
    "progress": "rota.worker.runner.telling",
    "sleep": "rota.worker.runner.steps",
    "step": "rota.worker.runner.steps",
    "touch": "rota.worker.runner.context",
}
"""Imported when first used: a module that only declares tasks need not load an event loop."""


def _default_client() -> Any:
    """In a runner it goes through the transport that the runner has installed."""
    client, transport = __getattr__("Client"), installed()
    return client.over(transport) if transport else client()


default.made_by(_default_client)


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'rota' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LATE[name]), name)
    return value
