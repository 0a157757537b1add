"""What the HTTP port asks of its node. `node.py` implements it; the port knows nothing else of the cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rota.client.errors import EnqueueError
from rota.client.model import Enqueue, Mode, Parameter, Receipt
from rota.client.wire.views import (
    ANY_JOB,
    EventsPage,
    FailedFilter,
    FailedView,
    FinishedView,
    FlowDone,
    FlowResults,
    FlowsPage,
    FlowView,
    JobsFilter,
    JobsPage,
    JobView,
    LogView,
    NewSchedule,
    NodeView,
    OperationView,
    OutboxTurn,
    OutboxView,
    QueueView,
    ScheduleView,
    StatsView,
    TaskView,
    TurnAsked,
    Verb,
)


class ScheduleService(Protocol):
    """What the port asks of its node about schedules."""

    async def put(self, name: str, new: NewSchedule) -> ScheduleView: ...
    async def get(self, name: str) -> ScheduleView: ...
    async def list(self, after: str, limit: int) -> list[ScheduleView]: ...
    async def pause(self, name: str) -> ScheduleView: ...
    async def resume(self, name: str) -> ScheduleView: ...
    async def run_now(self, name: str) -> str: ...
    async def delete(self, name: str) -> None: ...


class FlowService(Protocol):
    """What the port asks of its node about flows. All raise `FlowUnknown`."""

    async def page(self, name: str, limit: int, after: str) -> FlowsPage: ...
    async def view(self, flow: str, *, parts: bool = True, last: bool = True, wait_s: float = 0.0) -> FlowView:
        """As it is when it is over or can go on no more, or after so many seconds."""
        ...

    async def results(self, flow: str, after: str) -> FlowResults: ...


class FlowDeedsService(Protocol):
    async def cancel(self, flow: str) -> FlowDone: ...
    async def retry(self, flow: str) -> FlowDone: ...


class OutboxService(Protocol):
    """What the port asks of its node about outboxes."""

    async def turn(self, name: str, asked: TurnAsked) -> OutboxTurn:
        """Take, keep or leave the turn of a relay. Raises `InvalidJob`."""
        ...

    async def list(self) -> list[OutboxView]: ...


class NodeService(Protocol):
    @property
    def cluster(self) -> str: ...

    @property
    def node(self) -> str:
        """The current identity; "" while there is none (joining, or the lease was lost)."""
        ...

    @property
    def header_schema(self) -> int:
        """The newest schema of a bundle's header that each node of the cluster can read and verify."""
        ...

    async def enqueue(self, bundles: list[Enqueue], seen_revision: int) -> list[Receipt | EnqueueError]:
        """Store bundles; returns when each is committed or refused, in the order given. Repeating a bundle is harmless.
        Raises `Overloaded` if the node has no identity now: try another node."""
        ...

    async def put_function(self, digest: str, blob: bytes) -> None:
        """Store code shipped by value (signed, content-addressed by `digest`, the sha256 of the unsigned code)."""
        ...

    async def follow(
        self, session: str, bundles: list[str], push: Callable[[str, bytes], None]
    ) -> Callable[[], None]:
        """Push (bundle, encoded `Results`) for each stored and each future result record of these bundles; one record
        may come twice. b"" in place of a record: the bundle has ended, and what has not been pushed is not kept. What
        is known already is pushed before this returns. Returns the function that ends it. Raises `JobUnknown` for a
        bundle that left no trace."""
        ...

    async def tasks(self) -> list[TaskView]: ...

    async def parameters(self, task: str) -> tuple[Parameter, ...] | None:
        """Of a registered task; None where they are not known."""
        ...

    @property
    def jobs_per_bundle(self) -> int:
        """How many jobs of one bundle it takes: as many as every node of the cluster can read."""
        ...

    async def task_mode(self, task: str) -> Mode | None:
        """"async" or "sync" for a registered task, None for an unknown one."""
        ...

    async def job(self, job_id: str) -> JobView: ...

    async def log(self, job_id: str) -> LogView:
        """The lines that are kept of a job's log."""
        ...

    async def news(self, job_id: str, after: str, wait_s: float) -> EventsPage:
        """What has happened to a job since `after` (`next` of the page before; "": where it is now), as soon as there
        is something, or after so many seconds. Raises `InvalidJob`."""
        ...

    async def jobs(
        self, place: str, queue: str, task: str, limit: int, after: str, more: JobsFilter = ANY_JOB
    ) -> JobsPage:
        """A part of the list of jobs: those at a place, of a queue, of a task ("": any), from behind `after` (`next` of
        the part before). Raises `InvalidJob`."""
        ...

    async def nodes(self) -> list[NodeView]: ...

    async def queue_part(self, after: str, limit: int) -> tuple[list[QueueView], str]:
        """Queues behind the name `after`, as keys are ordered, and what to go on after ("": these were the last)."""
        ...

    async def failed(self, queue: str | None, limit: int, after: str = "") -> tuple[list[FailedView], str]:
        """Failed jobs, from behind `after`, and what to go on after ("": these were the last)."""
        ...

    async def finished(self, queue: str | None, limit: int, after: str = "") -> tuple[list[FinishedView], str]:
        """Jobs that ended well and are kept; as `failed`."""
        ...

    async def body(self, job_id: str) -> bytes:
        """The signed arguments of a job that is still stored. Raises `InvalidJob`, `JobUnknown`."""
        ...

    async def stats(self) -> StatsView: ...

    async def set_queue(self, queue: str, changes: dict[str, object]) -> dict[str, object]:
        """Change settings of a queue; returns all its settings. Raises InvalidJob."""
        ...

    async def queue_head(self, queue: str, verb: str) -> str:
        """`retry` or `skip` the failed head of a serial queue; returns its id. InvalidJob if it has not failed."""
        ...

    async def begin(self, verb: Verb, which: FailedFilter, expected: int | None = None) -> str:
        """Begin a bulk operation; returns its id. `expected`, of "empty": how many jobs must be waiting (None: however
        many). Raises `InvalidJob`, `Overloaded`."""
        ...

    async def operation(self, name: str, wait_s: float) -> OperationView:
        """A bulk operation, when it has ended or after so many seconds. Raises `OperationUnknown`."""
        ...

    async def operations(self) -> list[OperationView]: ...

    @property
    def flows(self) -> FlowService: ...

    @property
    def flow_deeds(self) -> FlowDeedsService:
        """Raises `Overloaded` if the node has no identity now."""
        ...

    @property
    def schedules(self) -> ScheduleService:
        """Raises `Overloaded` if the node has no identity now."""
        ...

    @property
    def outboxes(self) -> OutboxService:
        """Raises `Overloaded` if the node has no identity now."""
        ...

    async def cancel(self, job_id: str) -> str:
        """"cancelled", "requested" (a node holds the job, and stops it) or "ended"."""
        ...

    def why_not_ready(self) -> str | None:
        """None if the node is a member and its runners are up, otherwise why not."""
        ...
