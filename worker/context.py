"""Which job is this? A context variable, set around each job; log records carry the job's id."""

from __future__ import annotations

from contextvars import ContextVar

import msgspec

from rota.client import ids

from .frames import Work


class JobContext(msgspec.Struct, frozen=True):
    """What a job may know of itself. `fencing_token` grows with every claim of the job: hand it to outside systems
    that refuse a smaller one than they have seen, and a stale twin of this job cannot harm them."""

    id: str
    task: str
    queue: str
    attempt: int
    enqueued_at: float
    fencing_token: int


running: ContextVar[tuple[Work, int] | None] = ContextVar("rota_job", default=None)
"""Set by runners only; cheap to set, turned into a `JobContext` when somebody asks."""


def current_job() -> JobContext | None:
    """The job that runs here, or None. In a thread that a job starts, only if the context was copied into it, as
    `asyncio.to_thread` does."""
    job = running.get()
    if job is None:
        return None
    work, index = job
    return JobContext(
        id=ids.job_id(work.bundle, index),
        task=work.task,
        queue=work.queue,
        attempt=work.attempt,
        enqueued_at=work.enqueued_at,
        fencing_token=work.fence,
    )


def current_job_id() -> str:
    """The id of the job that runs here, or "-"."""
    job = running.get()
    return "-" if job is None else ids.job_id(job[0].bundle, job[1])
