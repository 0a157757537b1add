"""What a node does for its port (`NodeService`), and for whoever else asks it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from rota.client.errors import EnqueueError, NotSerializable, Overloaded, Unreachable
from rota.client.model import HEADER_SCHEMA, JOBS_PER_BUNDLE, Enqueue, Mode, Parameter, Receipt
from rota.client.options import rates
from rota.client.wire.views import (
    ANY_JOB,
    EventsPage,
    FailedFilter,
    FailedView,
    FinishedView,
    JobsFilter,
    JobsPage,
    JobView,
    LogView,
    NodeView,
    OperationView,
    QueueView,
    StatsView,
    TaskView,
    Verb,
)

from ..admin.flow_deeds import FlowDeeds
from ..admin.flows import FlowStatus
from ..admin.operations import Operations
from ..admin.outboxes import Outboxes
from ..admin.schedules import ScheduleAdmin
from ..admin.status import Status
from ..ledger.ledger import Put
from ..state.records import QueueRecord
from .identities import Identities
from .intake.admission import NO_MEMBER
from .life import Life, Parts
from .outcomes.followers import Followers
from .readiness import Readiness

SEEN_S = 1.0
"""How long a change of a queue may take to come back to the node that made it."""

LISTED_S = 10.0
"""How long who asks waits for a node that has just started to have read what there is: it would answer that there is
nothing, of which a command line would make that a call needs no check."""


class Service:
    """It reads by itself; what changes anything, the present identity does."""

    def __init__(self, parts: Parts, identities: Identities, followers: Followers) -> None:
        self._parts = parts
        self._identities = identities
        self._followers = followers
        self._readiness = Readiness(parts.standing, identities, parts.reach, parts.runners, parts.directory)

    @property
    def cluster(self) -> str:
        return self._parts.context.keys.cluster

    @property
    def node(self) -> str:
        return self._identities.node

    @property
    def jobs_per_bundle(self) -> int:
        members = self._parts.directory.members.values()
        return min((member.jobs_per_bundle for member in members), default=JOBS_PER_BUNDLE)

    @property
    def header_schema(self) -> int:
        """What is signed as a whole can be cut only by who has the key: so each member has to have all that this node
        has, to be offered it."""
        members, marks = self._parts.directory.members.values(), set(self._parts.context.seal.keyring.marks)
        if not all(marks <= set(member.keys or ()) for member in members):
            return HEADER_SCHEMA
        return min((member.header_schema for member in members), default=HEADER_SCHEMA)

    @property
    def _life(self) -> Life:
        if self._identities.life is None:
            raise Overloaded(NO_MEMBER, 0.2)
        return self._identities.life

    def why_not_ready(self) -> str | None:
        return self._readiness.why_not()

    # -- taking in ---------------------------------------------------------------------------------------------------

    async def enqueue(self, bundles: list[Enqueue], seen_revision: int) -> list[Receipt | EnqueueError]:
        return await self._life.admission.enqueue(bundles, seen_revision)

    async def put_function(self, digest: str, blob: bytes) -> None:
        life, context = self._life, self._parts.context
        if not self._parts.settings.functions:
            raise NotSerializable("this node takes no functions shipped by value (it was started with --no-functions)")
        context.seal.keyring.open_function(digest, blob, context.keys.cluster)
        lease = await life.functions.lease()
        await life.context.commits.write((life.context.member,), (Put(context.keys.function(digest), blob, lease),))

    # -- telling -----------------------------------------------------------------------------------------------------

    async def follow(
        self, session: str, bundles: list[str], push: Callable[[str, bytes], None]
    ) -> Callable[[], None]:
        return await self._followers.follow(session, bundles, push)

    async def _listed(self) -> Status:
        """Raises `Unreachable`."""
        try:
            async with asyncio.timeout(LISTED_S):
                await self._parts.directory.listed.wait()
        except TimeoutError:
            raise Unreachable("this node has just started, and the store has not told it yet what there is") from None
        return self._parts.status

    async def tasks(self) -> list[TaskView]:
        return (await self._listed()).tasks()

    async def parameters(self, task: str) -> tuple[Parameter, ...] | None:
        known = await self._parts.directory.task(task)
        return known.parameters if known is not None else None

    async def task_mode(self, task: str) -> Mode | None:
        return await self._parts.directory.task_mode(task)

    async def job(self, job_id: str) -> JobView:
        return await (await self._listed()).jobs.job(job_id)

    async def log(self, job_id: str) -> LogView:
        return await self._parts.status.watching.log(job_id)

    async def news(self, job_id: str, after: str, wait_s: float) -> EventsPage:
        return await self._parts.status.watching.news(job_id, after, wait_s)

    async def jobs(
        self, place: str, queue: str, task: str, limit: int, after: str, more: JobsFilter = ANY_JOB
    ) -> JobsPage:
        return await (await self._listed()).listing.page(place, queue, task, limit, after, more)

    async def nodes(self) -> list[NodeView]:
        return await (await self._listed()).nodes()

    async def queue_part(self, after: str, limit: int) -> tuple[list[QueueView], str]:
        return await (await self._listed()).queue_parts.part(after, limit)

    async def failed(self, queue: str | None, limit: int, after: str = "") -> tuple[list[FailedView], str]:
        return await (await self._listed()).failed(queue, limit, after)

    async def finished(self, queue: str | None, limit: int, after: str = "") -> tuple[list[FinishedView], str]:
        return await self._parts.status.finished(queue, limit, after)

    async def body(self, job_id: str) -> bytes:
        return await self._parts.status.jobs.body(job_id)

    async def stats(self) -> StatsView:
        return await (await self._listed()).stats()

    # -- changing ----------------------------------------------------------------------------------------------------

    @property
    def schedules(self) -> ScheduleAdmin:
        return self._life.schedules

    @property
    def flows(self) -> FlowStatus:
        return self._parts.status.flows

    @property
    def flow_deeds(self) -> FlowDeeds:
        return self._life.flow_deeds

    @property
    def outboxes(self) -> Outboxes:
        return self._life.outboxes

    @property
    def _operations(self) -> Operations:
        if self._identities.life is None:
            raise Unreachable(f"this node can change nothing now: {self.why_not_ready()}")
        return self._identities.life.operations

    async def set_queue(self, queue: str, changes: dict[str, object]) -> dict[str, object]:
        record = await self._operations.set_queue(queue, changes)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEEN_S):     # an enqueue that follows at this node finds it
                while self._parts.directory.queues.get(queue, QueueRecord()) != record:     # noqa: ASYNC110
                    await asyncio.sleep(SEEN_S / 100)
        return {
            "paused": record.paused, "serial": record.serial, "max_concurrency": record.max_concurrency,
            "rate": None if record.rate is None else rates.words(record.rate),
            "max_waiting": record.max_waiting, "on_full": record.on_full,
        }

    async def queue_head(self, queue: str, verb: str) -> str:
        return await self._operations.head(queue, verb)

    async def begin(self, verb: Verb, which: FailedFilter, expected: int | None = None) -> str:
        return await self._operations.begin(verb, which, expected)

    async def operation(self, name: str, wait_s: float) -> OperationView:
        return await self._parts.status.operation(name, wait_s)

    async def operations(self) -> list[OperationView]:
        return await self._parts.status.operations()

    async def cancel(self, job_id: str) -> str:
        return await self._operations.cancel(job_id)
