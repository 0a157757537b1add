"""Which job is this? A context variable, set around each job; log records carry the job's id."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from rota.client import ids
from rota.client.calls import default
from rota.client.model import Outcome
from rota.client.options.headers import NONE as NO_HEADERS
from rota.client.process.threads import Future

from ..channel.frames import Question, Work

if TYPE_CHECKING:
    from rota.client.api.flows import FlowHandle


class JobContext(msgspec.Struct, frozen=True):
    """What a job may know of itself. `fencing_token` grows with every claim of the job: hand it to outside systems
    that refuse a smaller one than they have seen, and a stale twin of this job cannot harm them."""

    id: str
    task: str
    queue: str
    attempt: int
    enqueued_at: float
    fencing_token: int
    headers: Mapping[str, str] = {}
    """What travelled with the job: `task.using(headers=…)`, or what `rota.before_enqueue` added."""
    flow: str = ""
    """The id of the flow that it belongs to; "": to none."""
    takeovers: int = 0
    """How many nodes were lost while they had this job; it may have begun there."""
    cancel_requested: bool = False
    """Somebody wants the job to stop: it has its task's `cancel_grace` to end in its own way, then it is killed. An
    `async def` job gets a `CancelledError`, too. As of the call of `current_job()`: ask anew each time."""


class Cancelled(BaseException):
    """What `check_cancelled()` raises. A job that ends with it was cancelled. Like `asyncio.CancelledError`, it passes
    by `except Exception`."""


class Suspended(BaseException):
    """What ends a run of a job that gives its slot back, to go on later (`rota.sleep`, `handle.result()`): it passes by
    `except Exception`; `finally` and context managers see it."""

    def __init__(
        self, status: Literal["sleep", "wait"], text: str, *, delay_s: float = 0.0, value: bytes = b""
    ) -> None:
        super().__init__(status, text)
        self._ending = (status, value, text, delay_s)

    def __str__(self) -> str:
        return self._ending[2]

    def outcome(self, index: int) -> Outcome:
        """How the run has ended."""
        status, value, text, delay_s = self._ending
        return Outcome(index, status, value, text, "", delay_s)


def suspended_in(error: BaseException) -> Suspended | None:
    """What a run has ended with, if it gave its slot back; also where a task group wraps it."""
    if isinstance(error, BaseExceptionGroup):
        found = [suspended_in(one) for one in error.exceptions]
        return found[0] if all(found) else None
    return error if isinstance(error, Suspended) else None


running: ContextVar[tuple[Work, int] | None] = ContextVar("rota_job", default=None)
"""Set by runners only; cheap to set, turned into a `JobContext` when somebody asks."""


headers: ContextVar[Mapping[str, str]] = ContextVar("rota_headers")
"""Of the running job, set only if it has some."""


class Runner:
    """What a runner lets its jobs do, put in place by the runner itself: `touch` tells the node, `wanted_gone` says
    whether a job is to be cancelled, `ask` asks the node what only a job asks for itself."""

    touch: Callable[[Work, int], None] | None = None
    wanted_gone: Callable[[Work, int], bool] | None = None
    ask: Callable[[Question], Future[Any]] | None = None


TOUCH_EVERY_S = 0.02
"""A job that touches in a tight loop does not flood its node."""

_touched: tuple[int, int, float] = (0, 0, 0.0)


def touch() -> None:
    """Restart the clock of the running job: its `timeout` counts from now. Raises RuntimeError outside of a job."""
    global _touched
    job = running.get()
    if job is None:
        raise RuntimeError("rota.touch(): no job is running here")
    work, index = job
    now = time.monotonic()
    key, last, at = _touched
    if (key, last) == (work.key, index) and now - at < TOUCH_EVERY_S:
        return
    _touched = (work.key, index, now)
    if Runner.touch is not None:
        Runner.touch(work, index)


def check_cancelled() -> None:
    """Raise `Cancelled` if somebody wants the running job to stop: for plain functions with a good place to stop at.
    Raises RuntimeError outside of a job."""
    job = current_job()
    if job is None:
        raise RuntimeError("rota.check_cancelled(): no job is running here")
    if job.cancel_requested:
        raise Cancelled(f"job {job.id} was asked to stop")


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
        headers=headers.get(NO_HEADERS),
        flow=work.flow,
        takeovers=work.takeovers,
        cancel_requested=Runner.wanted_gone is not None and Runner.wanted_gone(work, index),
    )


def current_flow() -> FlowHandle | None:
    """The flow that the running job belongs to, or None: `with rota.current_flow().add(): …` enqueues jobs that become
    part of it, and it is not over before they are."""
    job = running.get()
    return default.client().flow_handle(job[0].flow) if job is not None and job[0].flow else None


def current_job_id() -> str:
    """The id of the job that runs here, or "-"."""
    job = running.get()
    return "-" if job is None else ids.job_id(job[0].bundle, job[1])
