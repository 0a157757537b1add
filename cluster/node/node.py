"""A node: one member process. It joins, takes jobs in, runs what it is given, stands for election, and leaves.

`Node` outlives its identities: when a lease is lost, everything that belonged to that identity ends, its runners are
dead by then, and a new identity joins. `Node` implements what the HTTP port asks (`service.NodeService`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import msgspec

from rota.client.codec import Seal
from rota.client.errors import EnqueueError, LedgerError, NotSerializable, Overloaded, StoreRewound, Unreachable
from rota.client.model import Enqueue, Mode, Outcome, Parameter, Receipt
from rota.client.views import (
    FailedFilter,
    FailedView,
    FinishedView,
    JobsPage,
    JobView,
    NodeView,
    OperationView,
    QueueView,
    StatsView,
    TaskView,
    Verb,
)
from rota.worker.pool.runners import Runners, Work

from ..admin.operations import Operations
from ..admin.schedules import ScheduleAdmin
from ..admin.status import Status
from ..cancellation import apart
from ..clock import Clock
from ..context import IdentityContext
from ..events import records as event
from ..events.hub import Events
from ..ledger.buckets import Bucket, Buckets
from ..ledger.commits import Commits, unmodified
from ..ledger.follow import Listing, follow
from ..ledger.ledger import Ledger, Put, Record
from ..ledger.patience import steadily
from ..master.election import Deposed, Election
from ..master.term import Master
from ..state.directory import Directory
from ..state.keys import Keys, shown
from ..state.records import Member, QueueRecord, encode
from .executor import Executor
from .followers import Followers
from .held import Held, Told
from .intake import LATELY_S, BodyCache, Intake
from .keeping import keep_failure
from .membership import Identity, IdentityLost, Membership
from .outcomes import Keep
from .pressure import Pressure
from .reach import Reach
from .registration import Code, Registration, code_of
from .shown import Shown
from .volatile import FIRST_KEY, Volatile

log = logging.getLogger(__name__)

SEEN_S = 1.0
"""How long a change of a queue may take to come back to the node that made it."""
FUNCTION_S = 30 * 86_400.0
"""Code shipped by value is kept this long after it was last shipped."""


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is told about itself. Times in seconds."""

    name: str                           # how its identities' names begin
    address: str = ""
    queues: tuple[str, ...] = ("*",)
    functions: bool = True
    python: str
    version: str
    lease_ttl_s: int = 10
    grace_s: float = 30.0
    keep_result_s: float = 3600.0
    keep_finished_s: float = 0.0
    keep_failed_s: float = 0.0          # 0: until a person decides
    receipt_ttl_s: float = 120.0
    compact: bool = False


class _Drained(Exception):
    """The node has left the cluster in good order."""


class Life(msgspec.Struct, kw_only=True):
    """Everything that belongs to one identity. `registered`: the tasks of this node are known to the cluster; before
    that it would refuse its own as unknown."""

    identity: Identity
    commits: Commits
    intake: Intake
    executor: Executor
    election: Election
    member: Member
    functions: Bucket
    operations: Operations
    schedules: ScheduleAdmin
    registration: Registration
    pressure: Pressure
    registered: asyncio.Event
    leading: asyncio.Task[None] | None = None


class Node:
    def __init__(
        self, settings: NodeSettings, ledger: Ledger, keys: Keys, clock: Clock, rng: random.Random, seal: Seal,
        runners: Callable[[Node], Runners], events: Events | None = None,
    ) -> None:
        self.settings = settings
        self.events = events or Events()
        self._reach = Reach(clock, self.events)
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self._rng = rng
        self._seal = seal
        self.directory = Directory(ledger, keys)
        self._followers = Followers(ledger, keys, seal)
        self._cache = BodyCache()
        self._life: Life | None = None
        self._membership: Membership | None = None
        self.phase = "starting"
        """What it is about while it is no member, for whoever asks why it is not ready."""
        self._drain = asyncio.Event()
        self._hurry = asyncio.Event()
        self._left = False
        self.runners = runners(self)
        self.events.listen(self._report_failure, (event.JobSetAside,))
        self._volatile = Volatile(
            self.runners, seal, self._followers.publish, self._may_take_volatile, self.events, self._volatile_failed
        )
        self._followers.local = self._volatile.past
        self._shown = Shown(self.runners, clock, self._job_of, self._held_by, self._volatile)
        self._status = Status(ledger, keys, clock, self.directory, seal, self._shown)
        self._followers.taken_at = lambda bundle: self._cache.taken_at(bundle, clock.monotonic() - LATELY_S)
        self.is_master = False
        self.identities = 0

    # -- living ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Be a member until drained. Raises what made it impossible (a `ConfigError`, mostly)."""
        try:
            self.phase = "its runners are starting: they import the app"
            if not await self.unless_leaving(self.runners.start()):
                return
            self.phase = "joining the cluster"
            async with asyncio.TaskGroup() as group:
                background = [
                    group.create_task(steadily("following the cluster", self.directory.run), name="directory"),
                    group.create_task(steadily("following results", self._followers.run), name="followers"),
                    group.create_task(
                        steadily("counting", lambda: self._status.run(self._counters)), name="status"
                    ),
                ]
                await self._identities()
                for task in background:
                    task.cancel()
        finally:
            self._life = None
            await self.runners.stop(0.0)

    async def unless_leaving(self, step: Coroutine[Any, Any, None]) -> bool:
        """Carry out what comes before it is a member. False if it was told to leave meanwhile."""
        task = asyncio.create_task(step, name="start")
        leaving = asyncio.create_task(self._drain.wait(), name="leaving")
        try:
            await asyncio.wait([task, leaving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        if task.cancelled():
            return False
        task.result()
        return True

    async def _identities(self) -> None:
        while not self._drain.is_set():
            pause_s = 0.0
            try:
                await apart(self._live(), "identity")
            except* _Drained:
                pass
            except* IdentityLost as group:
                self.events.emit(event.IdentityEnded(self.node, str(group.exceptions[0])))
            except* StoreRewound:
                raise               # whatever this process knows is void: it starts over
            except* LedgerError as group:
                why = f"the store refused this identity: {group.exceptions[0]}"
                self.events.emit(event.IdentityEnded(self.node, why))
                pause_s = 0.5       # not waited for in here: what cancels it would come out in a group
            finally:
                self._life = None
                self.is_master = False
            if not self._drain.is_set():
                await asyncio.sleep(pause_s)
                await self._bury()

    async def _bury(self) -> None:
        """Make sure that nothing of an ended identity is left: its runners first, then what else is on its lease."""
        self._lose_volatile()
        await self.runners.kill_all()
        try:
            async with asyncio.timeout(2.0):
                if self._membership is not None:
                    await self._membership.leave()
        except (TimeoutError, LedgerError):
            self.events.emit(event.RevokeFailed(self.settings.name))

    async def _live(self) -> None:
        """One identity, from joining to its end."""
        member = self._member()
        membership = self._membership = Membership(
            self._ledger, self._keys, self._clock, self._rng, name=self.settings.name,
            ttl_s=self.settings.lease_ttl_s, on_renewed=self.runners.lease, on_suspended=self._suspended,
            on_resumed=self._resumed, events=self.events, shut_out=lambda: self._reach.shut_out,
        )
        joining = asyncio.ensure_future(membership.join(member))
        draining = asyncio.ensure_future(self._drain.wait())
        await asyncio.wait([joining, draining], return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        if not joining.done():
            joining.cancel()
            return
        identity = joining.result()
        self.identities += 1
        self._reach.served()
        self.events.emit(event.NodeJoined(identity.node, self._keys.cluster))
        async with Commits(self._ledger) as commits:
            life = self._life = self._make(identity, membership, commits, member)
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(membership.keep(), name="keepalive")
                group.create_task(self._watch_self(life), name="member-watch")
                group.create_task(life.executor.run(identity.create_revision), name="executor")
                group.create_task(
                    steadily("registering tasks", partial(self._register, life)), name="register-tasks"
                )
                life.leading = group.create_task(self._lead(life), name="lead")
                group.create_task(steadily("looking at the store", life.pressure.run), name="store")
                group.create_task(steadily("telling what runs", lambda: self._shown.report(
                    commits, self._keys, identity.condition, identity.node, identity.lease
                )), name="running")
                group.create_task(self._leave_when_asked(life, membership), name="leave")

    def _member(self) -> Member:
        settings = self.settings
        return Member(
            settings.address, list(settings.queues), capacity=dict(self.runners.capacity.items()),
            python=settings.python, version=settings.version, since=round(self._clock.wall(), 3),
            functions=settings.functions, keys=self._seal.keyring.marks, spare=dict(self.runners.spare.items()),
            **code_of(self.runners),
        )

    def _make(self, identity: Identity, membership: Membership, commits: Commits, member: Member) -> Life:
        settings = self.settings
        buckets = Buckets(self._ledger, self._clock, self._rng)
        context = IdentityContext(
            node=identity.node, member=identity.condition, ledger=self._ledger, commits=commits, keys=self._keys,
            clock=self._clock, seal=self._seal, buckets=buckets, events=self.events,
        )
        executor = Executor(
            context, self.runners, self._cache, may_start=membership.may_start,
            keep=Keep(settings.keep_result_s, settings.keep_finished_s), cancel_volatile=self._volatile.cancel,
        )
        intake = Intake(
            context, self.directory, buckets.of(settings.receipt_ttl_s), self._cache, volatile=self._volatile.take,
            begin=executor.begin, itself=lambda: self._life.member if self._life is not None else None,
        )
        election = Election(
            self._ledger, commits, self._keys, identity.node, identity.lease, identity.condition, self.events
        )
        schedules = ScheduleAdmin(context, self.directory, self._status, self.enqueue)
        operations = Operations(context, self._status, self._rng)
        registration = Registration(context, operations, schedules)
        pressure = Pressure(
            context, identity.key, intake, self._reach, compacts=lambda: settings.compact and self.is_master
        )
        return Life(
            identity=identity, commits=commits, intake=intake, executor=executor, election=election, member=member,
            functions=buckets.of(FUNCTION_S), operations=operations, schedules=schedules, registration=registration,
            pressure=pressure, registered=asyncio.Event(),
        )

    async def _register(self, life: Life) -> None:
        async def show(code: Code) -> None:
            await self._show(life, **code)

        await life.registration.follow(self.runners, show, life.registered)

    async def _show(self, life: Life, **changes: object) -> None:
        """Change what this node's record says."""
        member = msgspec.structs.replace(life.member, **changes)
        if member != life.member:
            life.member = member
            await life.commits.write(
                (life.identity.condition,), (Put(life.identity.key, encode(member), life.identity.lease),)
            )

    async def _watch_self(self, life: Life) -> None:
        """The member key says whether we live; keepalives can be answered after the lease was revoked. What somebody
        else writes into it is put right; but without the lease it is no member's, and others take over."""
        identity = life.identity
        key, revision = identity.key, identity.create_revision
        async with follow(self._ledger, key, key + b"\0", after=revision) as news:
            async for seen in news:
                if isinstance(seen, Listing):
                    now = [record if record.create_revision == revision else None for record in seen.records] or [None]
                else:
                    now = [None if change.deleted else change.record for change in seen.events]
                for record in now:
                    is_ours = record is not None and record.lease == identity.lease
                    if not is_ours and self._left:
                        return
                    await self._look_at_self(life, record)

    async def _look_at_self(self, life: Life, record: Record | None) -> None:
        identity = life.identity
        if record is None or record.lease != identity.lease:
            raise IdentityLost(f"the member key of {identity.node} is gone")
        if record.value != encode(life.member):
            self.events.emit(event.OverwriteMended(shown(identity.key)))
            conditions = (identity.condition, unmodified(record.key, record.mod_revision))
            await life.commits.write(conditions, (Put(identity.key, encode(life.member), identity.lease),))

    async def _lead(self, life: Life) -> None:
        """Stand for election, serve the term, and stand again."""
        while True:
            pause_s = 0.0
            try:
                fence = await life.election.campaign()
                self.is_master = True
                assert isinstance(fence.operand, int)
                self.events.emit(event.BecameMaster(life.identity.node, fence.operand))
                await Master(
                    self._ledger, self._keys, self._clock, fence, self._seal, self._rng,
                    keep_failed_s=self.settings.keep_failed_s, events=self.events, node=life.identity.node,
                ).run()
            except* Deposed as group:
                self.events.emit(event.MastershipEnded(life.identity.node, str(group.exceptions[0])))
                pause_s = 0.1 + self._rng.random() * 0.1
            except* StoreRewound:
                raise
            except* Exception as group:
                log.exception("the master's term broke off, and begins anew: %s", group.exceptions[0])
                pause_s = 1.0
            finally:
                self.is_master = False
            await asyncio.sleep(pause_s)

    # -- the lease's ups and downs -----------------------------------------------------------------------------------

    def _suspended(self) -> None:
        self.events.emit(event.LeaseExpired(self.node))
        self._lose_volatile()

    def _may_take_volatile(self) -> bool:
        sure = self._membership is not None and self._membership.is_sure
        return self._life is not None and not self._drain.is_set() and sure

    def _lose_volatile(self) -> None:
        """The runners are killed, and with them what lies nowhere else."""
        if lost := self._volatile.lost():
            self.events.emit(event.VolatileLost(lost))

    def _volatile_failed(self, work: Work, body: bytes, attempts: int, outcome: Outcome) -> None:
        life = self._life
        if life is not None:
            self._group.create_task(keep_failure(
                work, body, attempts, outcome, commits=life.commits, keys=self._keys, clock=self._clock,
                seal=self._seal, member=life.identity.condition, node=life.identity.node,
                order=self.directory.revision, wanted=lambda: self._life is life,
            ), name="keep-failure")

    def _resumed(self) -> None:
        """The lease has survived, the runners have not: hand back what lies under us, and go on."""
        self.events.emit(event.LeaseSurvived(self.node))
        life = self._life
        if life is not None:
            self._group.create_task(self._start_over(life), name="start-over")

    async def _start_over(self, life: Life) -> None:
        self._lose_volatile()
        await self.runners.kill_all()
        released = await life.executor.release_all()
        self.events.emit(event.BundlesHandedBack(life.identity.node, released, "outage"))

    # -- leaving -----------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Leave in good order; a second call hurries: running jobs are killed and handed back at once."""
        if self._drain.is_set():
            self._hurry.set()
        self._drain.set()

    async def _leave_when_asked(self, life: Life, membership: Membership) -> None:
        await self._drain.wait()
        self.events.emit(event.NodeLeaving(life.identity.node, self.settings.grace_s))
        life.executor.drain()
        try:
            async with asyncio.timeout(self.settings.grace_s):
                await self._hand_over(life)
                hurry = asyncio.ensure_future(self._hurry.wait())
                idle = asyncio.ensure_future(life.executor.until_idle())
                await asyncio.wait([hurry, idle], return_when=asyncio.FIRST_COMPLETED)
                hurry.cancel()
                idle.cancel()
        except TimeoutError:
            pass
        try:
            async with asyncio.timeout(4.0):
                if life.executor.held:
                    await self.runners.kill_all()
                    released = await life.executor.release_all()
                    self.events.emit(event.BundlesHandedBack(life.identity.node, released, "drain"))
                self._left = True
                await membership.leave()
            self.events.emit(event.NodeLeft(life.identity.node))
        except (TimeoutError, LedgerError) as error:
            self.events.emit(event.NodeLeft(life.identity.node, str(error) or "no answer"))
        self._lose_volatile()
        self.runners.no_lease()
        raise _Drained

    async def _hand_over(self, life: Life) -> None:
        """Mastership and what has not been started go to others at once."""
        if life.leading is not None:
            life.leading.cancel()
        await self._show(life, state="draining")
        await life.election.resign(None)
        await life.executor.release_unstarted()

    def _job_of(self, key: int, index: int) -> Told | None:
        if key >= FIRST_KEY:
            return self._volatile.job_of(key, index)
        return self._life.executor.job_of(key, index) if self._life is not None else None

    def _held_by(self, key: int) -> Held | None:
        return self._life.executor.held_by(key) if self._life is not None else None

    # -- what runners call -------------------------------------------------------------------------------------------

    def on_outcomes(self, outcomes: Iterable[tuple[int, Outcome]]) -> None:
        claimed = []
        for key, outcome in outcomes:
            if key >= FIRST_KEY:
                self._volatile.on_outcome(key, outcome)
            else:
                claimed.append((key, outcome))
        if self._life is not None and claimed:
            self._life.executor.on_outcomes(claimed)

    def on_started(self, key: int, index: int) -> None:
        told = self._job_of(key, index)
        if told is not None:
            self.events.emit(event.JobStarted(told.bundle, index, told.task, told.queue, told.attempt))

    def _report_failure(self, aside: event.ClusterEvent) -> None:
        """No runner has seen it: ours call the application's error hooks."""
        assert isinstance(aside, event.JobSetAside)
        work = Work(0, aside.bundle, aside.task, aside.queue, "sync", aside.attempt, 0, 0.0, "pickle", [])
        self.runners.report(work, aside.index, aside.error)

    async def on_enqueue(self, bundles: list[Enqueue]) -> list[Receipt | EnqueueError]:
        """A job enqueues jobs. The runner holds no key: the node signs for it."""
        signed = [
            msgspec.structs.replace(bundle, body=self._seal.keyring.sign_body(bundle.body, self._seal.cluster))
            for bundle in bundles
        ]
        return await self.enqueue(signed, 0)

    async def on_function(self, digest: str, code: bytes) -> None:
        """A job enqueues a function by value."""
        await self.put_function(digest, self._seal.function(code))

    # -- NodeService -------------------------------------------------------------------------------------------------

    @property
    def cluster(self) -> str:
        return self._keys.cluster

    @property
    def node(self) -> str:
        return self._life.identity.node if self._life is not None else ""

    def why_not_ready(self) -> str | None:
        """Why this node should be given nothing now, or None: one sentence, for people and for `/readyz`."""
        if self._drain.is_set():
            return "leaving"
        life, membership = self._life, self._membership
        if life is None or membership is None:
            return f"not a member of the cluster now: {(membership and membership.joining) or self.phase}"
        if not membership.is_sure:
            return "the store has not renewed its lease in time: nothing runs here until it answers"
        if not membership.may_start():
            return "the store does not renew its lease: nothing is begun here until it answers"
        if (unserved := self._reach.why_not(life.commits.waits_s)) is not None:
            return unserved
        if self.runners.trouble is not None:
            return self.runners.trouble
        if not self.runners.stand:
            return "no runner stands: they were killed, and start again"
        if life.intake.full is not None:
            return life.intake.full
        if not life.registered.is_set():
            return "still registering its tasks"
        return None if self.directory.listed.is_set() else "still listing the cluster"

    async def enqueue(self, bundles: list[Enqueue], seen_revision: int) -> list[Receipt | EnqueueError]:
        life = self._life
        if life is None:
            raise Overloaded("this node is not a member of the cluster now; try another", 0.2)
        if (unserved := self._reach.why_not(life.commits.waits_s)) is not None:
            raise Overloaded(unserved, 1.0)
        await life.registered.wait()
        await self.directory.listed.wait()      # what it does not know, it would take a serial queue for any other
        return await life.intake.enqueue(bundles, seen_revision)

    async def put_function(self, digest: str, blob: bytes) -> None:
        life = self._life
        if life is None:
            raise Overloaded("this node is not a member of the cluster now; try another", 0.2)
        if not self.settings.functions:
            raise NotSerializable("this node takes no functions shipped by value (it was started with --no-functions)")
        self._seal.keyring.open_function(digest, blob, self._keys.cluster)
        key = self._keys.function(digest)
        lease = await life.functions.lease()
        await life.commits.write((life.identity.condition,), (Put(key, blob, lease),))

    async def follow(
        self, session: str, bundles: list[str], push: Callable[[str, bytes], None]
    ) -> Callable[[], None]:
        return await self._followers.follow(session, bundles, push)

    async def tasks(self) -> list[TaskView]:
        return self._status.tasks()

    def parameters(self, task: str) -> tuple[Parameter, ...] | None:
        known = self.directory.tasks.get(task)
        return known.parameters if known is not None else None

    async def task_mode(self, task: str) -> Mode | None:
        return await self.directory.task_mode(task)

    async def job(self, job_id: str) -> JobView:
        return await self._status.jobs.job(job_id)

    async def jobs(self, place: str, queue: str, task: str, limit: int, after: str) -> JobsPage:
        return await self._status.listing.page(place, queue, task, limit, after)

    async def nodes(self) -> list[NodeView]:
        return await self._status.nodes()

    async def queues(self) -> list[QueueView]:
        return await self._status.queues()

    async def failed(self, queue: str | None, limit: int, after: str = "") -> tuple[list[FailedView], str]:
        return await self._status.failed(queue, limit, after)

    async def finished(self, queue: str | None, limit: int, after: str = "") -> tuple[list[FinishedView], str]:
        return await self._status.finished(queue, limit, after)

    async def body(self, job_id: str) -> bytes:
        return await self._status.jobs.body(job_id)

    async def stats(self) -> StatsView:
        return await self._status.stats()

    @property
    def schedules(self) -> ScheduleAdmin:
        if self._life is None:
            raise Overloaded("this node is not a member of the cluster now; try another", 0.2)
        return self._life.schedules

    @property
    def _operations(self) -> Operations:
        if self._life is None:
            raise Unreachable(f"this node can change nothing now: {self.why_not_ready()}")
        return self._life.operations

    async def set_queue(self, queue: str, changes: dict[str, object]) -> dict[str, object]:
        record = await self._operations.set_queue(queue, changes)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEEN_S):     # an enqueue that follows at this node finds it
                while self.directory.queues.get(queue, QueueRecord()) != record:    # noqa: ASYNC110
                    await asyncio.sleep(SEEN_S / 100)
        return {"paused": record.paused, "serial": record.serial, "max_concurrency": record.max_concurrency}

    async def queue_head(self, queue: str, verb: str) -> str:
        return await self._operations.head(queue, verb)

    async def begin(self, verb: Verb, which: FailedFilter, expected: int | None = None) -> str:
        return await self._operations.begin(verb, which, expected)

    async def operation(self, name: str, wait_s: float) -> OperationView:
        return await self._status.operation(name, wait_s)

    async def operations(self) -> list[OperationView]:
        return await self._status.operations()

    async def cancel(self, job_id: str) -> str:
        return await self._operations.cancel(job_id)

    @property
    def volatile_jobs(self) -> int:
        """Jobs of level `none` that this node holds."""
        return self._volatile.held

    def _counters(self) -> tuple[int, int]:
        life = self._life
        return (life.intake.taken, life.executor.finished) if life is not None else (0, 0)
