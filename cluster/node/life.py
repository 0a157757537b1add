"""One identity of a node, from joining to its end: what belongs to it, what runs meanwhile, how it leaves."""

from __future__ import annotations

import asyncio
from functools import partial

import msgspec

from rota.client.errors import LedgerError
from rota.worker.pool.interface import Runners

from ..admin.flow_deeds import FlowDeeds
from ..admin.operations import Operations
from ..admin.outboxes import Outboxes
from ..admin.schedules import ScheduleAdmin
from ..admin.status import Status
from ..context import IdentityContext, NodeContext
from ..events import records as event
from ..ledger.buckets import Bucket, Buckets
from ..ledger.commits import Commits
from ..ledger.patience import steadily
from ..state.directory import Directory
from ..state.records import Member
from .bodies.cache import BodyCache
from .intake.admission import Admission
from .intake.intake import Intake
from .intake.pressure import Pressure
from .membership.candidate import Candidate
from .membership.membership import Identity, Membership
from .membership.own_record import OwnRecord
from .membership.reach import Reach
from .membership.registration import Code, Registration
from .membership.standing import Standing
from .outcomes.followers import Followers
from .outcomes.progress import Progress
from .outcomes.settle import Keep
from .running.executor import Executor
from .running.shown import Shown
from .running.volatile import Volatile
from .settings import NodeSettings

FUNCTION_S = 30 * 86_400.0
"""Code shipped by value is kept this long after it was last shipped."""


class Drained(Exception):
    """The node has left the cluster in good order."""


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What of a node outlives its identities."""

    settings: NodeSettings
    context: NodeContext
    standing: Standing
    runners: Runners
    directory: Directory
    cache: BodyCache
    volatile: Volatile
    shown: Shown
    progress: Progress
    status: Status
    reach: Reach
    followers: Followers


class Life:
    """Its parts are made when it has joined, and end with it. `run()` ends by raising: `IdentityLost`, `Drained`, or
    what the store said."""

    def __init__(
        self, parts: Parts, commits: Commits, identity: Identity, membership: Membership, member: Member
    ) -> None:
        settings, node, standing = parts.settings, parts.context, parts.standing
        self._parts = parts
        self._identity = identity
        self._membership = membership
        buckets = Buckets(node.ledger, node.clock, node.rng)
        self.context = context = IdentityContext(
            node=identity.node, member=identity.condition, ledger=node.ledger, commits=commits, keys=node.keys,
            clock=node.clock, seal=node.seal, buckets=buckets, events=node.events,
        )
        self.record = OwnRecord(context, identity, member)
        self.executor = Executor(
            context, parts.runners, parts.cache, may_start=membership.may_start,
            keep=Keep(settings.keep_result_s, settings.keep_finished_s), cancel_volatile=parts.volatile.cancel,
            is_limited=parts.directory.is_limited,
        )
        self.intake = Intake(
            context, parts.directory, buckets.of(settings.receipt_ttl_s), parts.cache, volatile=parts.volatile.take,
            begin=self.executor.begin, place=self.executor, record=self.record, awaited=parts.followers.waits_for,
        )
        self.admission = Admission(context, standing, parts.reach, parts.directory, self.intake)
        self.candidate = Candidate(
            node, context, identity.lease, standing, keep_failed_s=settings.keep_failed_s
        )
        self.schedules = ScheduleAdmin(context, parts.directory, parts.status, self.admission.enqueue)
        self.operations = Operations(context, parts.status, node.rng)
        self.flow_deeds = FlowDeeds(context, parts.status.flows, parts.status.jobs, self.operations)
        self.outboxes = Outboxes(context, node.rng)
        self.functions: Bucket = buckets.of(FUNCTION_S)
        self._registration = Registration(context, self.operations, self.schedules)
        self._pressure = Pressure(context, identity.key, self.intake, parts.reach, standing, compacts=settings.compact)

    async def run(self) -> None:
        parts, standing, identity, context = self._parts, self._parts.standing, self._identity, self.context
        standing.context, standing.claims = context, self.executor.claims
        async with asyncio.TaskGroup() as group:
            standing.tasks = group
            group.create_task(self._membership.keep(), name="keepalive")
            group.create_task(self.record.watch(), name="member-watch")
            group.create_task(self.executor.run(identity.create_revision), name="executor")
            group.create_task(steadily("registering tasks", self._register), name="register-tasks")
            group.create_task(steadily("hearing of flags", self.intake.express.run), name="express")
            leading = group.create_task(self.candidate.run(), name="lead")
            group.create_task(steadily("looking at the store", self._pressure.run), name="store")
            group.create_task(
                steadily("telling what runs", partial(parts.shown.report, context, identity.lease)), name="running"
            )
            group.create_task(
                steadily("telling how far jobs are", partial(parts.progress.report, context, identity.lease)),
                name="progress",
            )
            group.create_task(self._leave_when_asked(leading), name="leave")

    async def _register(self) -> None:
        await self._registration.follow(
            self._parts.runners, self._parts.settings.labels, self._show_code, self.admission.registered
        )

    async def _show_code(self, code: Code) -> None:
        await self.record.show(**code)

    async def start_over(self) -> None:
        """The lease has survived, the runners have not: hand back what lies under us, and go on."""
        self._parts.volatile.lose()
        await self._parts.runners.kill_all()
        released = await self.executor.release_all()
        self.context.events.emit(event.BundlesHandedBack(self.context.node, released, "outage"))

    async def _leave_when_asked(self, leading: asyncio.Task[None]) -> None:
        standing, runners, grace_s = self._parts.standing, self._parts.runners, self._parts.settings.grace_s
        emit, node = self.context.events.emit, self.context.node
        await standing.leaving.wait()
        emit(event.NodeLeaving(node, grace_s))
        self.executor.drain()
        try:
            async with asyncio.timeout(grace_s):
                await self._hand_over(leading)
                hurry = asyncio.ensure_future(standing.in_a_hurry.wait())
                idle = asyncio.ensure_future(self.executor.until_idle())
                await asyncio.wait([hurry, idle], return_when=asyncio.FIRST_COMPLETED)
                hurry.cancel()
                idle.cancel()
        except TimeoutError:
            pass
        try:
            async with asyncio.timeout(4.0):
                if self.executor.held:
                    await runners.kill_all()
                    emit(event.BundlesHandedBack(node, await self.executor.release_all(), "drain"))
                self.record.leave()
                await self._membership.leave()
            emit(event.NodeLeft(node))
        except (TimeoutError, LedgerError) as error:
            emit(event.NodeLeft(node, str(error) or "no answer"))
        self._parts.volatile.lose()
        runners.no_lease()
        raise Drained

    async def _hand_over(self, leading: asyncio.Task[None]) -> None:
        """Mastership and what has not been started go to others at once."""
        leading.cancel()
        await self.record.show(state="draining")
        await self.candidate.resign()
        await self.executor.release_unstarted()
