"""Planted bugs: each takes one safeguard out of the production code, as somebody might who does not see what it is for.

They prove the instrument, not the product: the seeds of `make test` must find every one of them. Nothing in production
knows of them; `apply` replaces methods for the life of a process (campaigns fork one for each).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec

from rota.client.errors import LeaseGone, LedgerError, WriteUnknown
from rota.cluster import directory, executor, intake, master, membership, node, operations, splitting, status, takeover
from rota.cluster.aggregator import Aggregator
from rota.cluster.ledger.commits import Commits, Verdict, Write, created
from rota.cluster.ledger.ledger import Delete, Event, Guard, Put, Target, Txn, TxnResult
from rota.cluster.records import Claim, Token, token_of

from . import process

# mypy: disable-error-code="method-assign, assignment, attr-defined"

Mutant: TypeAlias = Callable[[], None]
MUTANTS: dict[str, Mutant] = {}
"""By what is wrong with them."""


def mutant(apply: Mutant) -> Mutant:
    assert apply.__doc__ is not None
    MUTANTS[apply.__name__] = apply
    return apply


def _without(write: Write, prefix: bytes) -> Write:
    """A write less its guards on keys that begin like this."""
    return Write(tuple(guard for guard in write.guards if not guard.key.startswith(prefix)), write.ops)


def _change_enqueues(change: Callable[[intake.Intake, Write], Write]) -> None:
    original = intake.Intake._write

    async def _write(self: intake.Intake, *arguments: Any) -> Write:
        return change(self, await original(self, *arguments))

    intake.Intake._write = _write


def _change_claims(change: Callable[[master.Master, Write], Write]) -> None:
    """The write that gives a token to a node."""
    original = master.Master._give

    def _give(self: master.Master, command: Any) -> None:
        commits = self._commits

        class Changing:
            def submit(self_, write: Write) -> asyncio.Future[Verdict]:
                return commits.submit(change(self, write))

        self._commits = Changing()
        try:
            original(self, command)
        finally:
            self._commits = commits

    master.Master._give = _give


# -- taking jobs in --------------------------------------------------------------------------------------------------


@mutant
def enqueue_without_member_guard() -> None:
    """A node that is dead can still take jobs in: what it sent arrives late."""
    _change_enqueues(lambda self, write: _without(write, self._keys.nodes))


@mutant
def no_receipt() -> None:
    """Nothing remembers that a bundle was enqueued."""
    def change(self: intake.Intake, write: Write) -> Write:
        ops = tuple(op for op in write.ops if not op.key.startswith(self._keys.receipts))
        return Write(_without(write, self._keys.receipts).guards, ops)

    _change_enqueues(change)


@mutant
def receipt_without_guard() -> None:
    """The receipt is written, but a repeat is not held against it."""
    _change_enqueues(lambda self, write: _without(write, self._keys.receipts))


@mutant
def queues_unknown_at_first() -> None:
    """A node takes jobs in before it has listed the queues: of a serial one it does not know the tail. (It was so.)"""
    original = directory.Directory.__init__

    def __init__(self: directory.Directory, *arguments: Any) -> None:
        original(self, *arguments)
        self.listed.set()

    directory.Directory.__init__ = __init__


@mutant
def unknown_is_done() -> None:
    """An enqueue whose fate is unknown is acknowledged."""
    original = Commits._commit

    async def _commit(self: Commits, batch: list[Any]) -> None:
        ledger = self._ledger

        class Trusting:
            async def commit(self_, txn: Txn) -> TxnResult:
                try:
                    return await ledger.commit(txn)
                except WriteUnknown:
                    return TxnResult(True, self.revision, ())

        self._ledger = Trusting()
        try:
            await original(self, batch)
        finally:
            self._ledger = ledger

    Commits._commit = _commit


# -- giving them out -------------------------------------------------------------------------------------------------


@mutant
def claims_beside_jobs() -> None:
    """A claim is a key beside the token, which stays in its queue."""
    _change_claims(lambda self, write: Write(write.guards, tuple(op for op in write.ops if isinstance(op, Put))))


@mutant
def claim_guarded_by_its_absence() -> None:
    """Claiming asks whether there is a claim, not whether the token still lies there: a late twin claims a job again
    that was handed back, and given to another."""
    def change(self: master.Master, write: Write) -> Write:
        (claim,) = (op for op in write.ops if isinstance(op, Put))
        return Write((*_without(write, self._keys.jobs).guards, created(claim.key, 0)), write.ops)

    _change_claims(change)


@mutant
def claims_without_fence() -> None:
    """A master that has been succeeded goes on giving out jobs."""
    _change_claims(lambda self, write: _without(write, self._keys.master))


@mutant
def claims_for_the_dead() -> None:
    """The node that is given a job need not be a member."""
    _change_claims(lambda self, write: _without(write, self._keys.nodes))


@mutant
def dispatch_before_claims_are_known() -> None:
    """A new master reads the first page of each queue, and begins: it does not know what is claimed."""
    original = Aggregator._claim

    def _claim(self: Aggregator, event: Event, now: float) -> None:
        if self.is_open:
            original(self, event, now)

    Aggregator._claim = _claim


@mutant
def the_dead_do_not_count() -> None:
    """When a node is gone its claims count no more, though nobody has taken them over yet. (It was so.)"""
    original = Aggregator._node

    def _node(self: Aggregator, event: Event) -> None:
        original(self, event)
        for seat in self._gone.values():
            for held in seat.held.values():
                self._count(held, -1)
        self._gone.clear()

    Aggregator._node = _node


@mutant
def a_fresh_look_with_claims_under_way() -> None:
    """A master that starts again from a snapshot does not wait for what it has sent: it is claimed unseen. (It was
    so.)"""
    async def until_idle(self: Commits) -> None:
        return

    Commits.until_idle = until_idle


@mutant
def the_next_while_the_head_changes() -> None:
    """The head was rewritten by a person while it was given out: until the watch shows it, the next is taken for the
    head. (It was so.)"""
    master.Master._instead = lambda self, verdict, key: 0


@mutant
def blocked_heads_do_not_block() -> None:
    """In a serial queue what has failed is given out again."""
    original = Aggregator._next_serial

    def _next_serial(self: Aggregator, name: str, queue: Any, now: float) -> Any:
        for window in queue.windows.values():
            for lane in window.lanes.values():
                for item in lane.items.values():
                    item.token = msgspec.structs.replace(item.token, blocked=False)
        return original(self, name, queue, now)

    Aggregator._next_serial = _next_serial


@mutant
def limits_do_not_hold() -> None:
    """Jobs are counted against their task's limit when they run, not when they are given out."""
    def _count_jobs(self: Aggregator, held: Any, jobs: int) -> None:
        self._queue(held.queue).running += jobs

    Aggregator._count_jobs = _count_jobs


@mutant
def pieces_sort_as_text() -> None:
    """The pieces of a bundle are named .1, .10, .2: a serial queue runs them in that order. (It was so.)"""
    def piece_name(bundle: str, indexes: list[int]) -> str:
        return f"{splitting.whole(bundle)}.{min(indexes)}"

    splitting.piece_name = piece_name


@mutant
def split_loses_a_job() -> None:
    """The last job of a bundle is in none of its pieces."""
    original = splitting.pieces
    splitting.pieces = lambda *arguments: original(*arguments)[:-1] or original(*arguments)


# -- running them ----------------------------------------------------------------------------------------------------


@mutant
def two_commits_on_one_key() -> None:
    """Writes to one claim are sent as they come, several at a time."""
    class Never(set[bytes]):
        def update(self, *_: object) -> None:
            return

    original = Commits.__init__

    def __init__(self: Commits, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        self._busy_keys = Never()

    async def send(self: executor.Executor, held: executor.Held, settlement: Any) -> None:
        while settlement.lease_wanted is not None:
            try:
                settlement = settlement.with_lease(await settlement.lease_wanted.lease())
            except LedgerError:
                await asyncio.sleep(0.2)
        guard = created(held.record.key, held.record.create_revision)
        await self._commits.submit(Write((self._member, guard), settlement.ops))
        if settlement.final:
            self._forget(held)

    def _advance(self: executor.Executor, held: executor.Held) -> None:
        while held.queue and not self._over:
            self._group.create_task(send(self, held, held.queue.popleft()), name="mutant")

    Commits.__init__ = __init__
    executor.Executor._advance = _advance


@mutant
def outcome_guarded_by_presence() -> None:
    """An outcome asks whether there is a claim, not whether it is the one it was run under."""
    executor.Executor._guards = lambda self, held: (self._member, Guard(held.record.key, Target.VERSION, ">", 0))


@mutant
def bitmap_guarded_by_creation() -> None:
    """A late twin of a bitmap puts an older one back. (It was so.)"""
    executor.Executor._guards = lambda self, held: (
        self._member, created(held.record.key, held.record.create_revision)
    )


@mutant
def a_repeat_that_fails_has_failed() -> None:
    """A write that was repeated, and then found its guard broken, is taken for refused: it was the first try that
    broke it."""
    def _took_place(held: executor.Held, verdict: Verdict) -> bool:
        if verdict.applied:
            held.mod_revision = verdict.revision
        return verdict.applied

    executor.Executor._took_place = staticmethod(_took_place)


@mutant
def ended_claims_begin_again() -> None:
    """The watch shows a claim whose end is already committed, and it is begun. (It was so.)"""
    executor.Executor._note_ended = lambda self, bundle, create_revision: None


@mutant
def forgetting_by_name() -> None:
    """When a claim has ended, the bundle is forgotten, even if it has come again under another claim. (It was so.)"""
    original = executor.Executor._forget

    def _forget(self: executor.Executor, held: executor.Held) -> None:
        original(self, held)
        self._held.pop(held.bundle, None)

    executor.Executor._forget = _forget


@mutant
def handing_back_what_runs() -> None:
    """After an outage a node hands back all its claims, also those that came and were begun since. (It was so.)"""
    executor.Executor._is_held = lambda self, bundle, record: False


@mutant
def handed_back_in_a_storm() -> None:
    """A node that may not start a job hands it back, and gets it again at once, and hands it back. (It was so.)"""
    original = executor.Executor._submit

    def _submit(self: executor.Executor, held: executor.Held) -> None:
        if self._may_start():
            original(self, held)
        else:
            self._release([held])

    executor.Executor._submit = _submit


@mutant
def nothing_is_handed_back() -> None:
    """After an outage that killed its runners a node goes on as if they were still at it."""
    async def _start_over(self: node.Node, life: node.Life) -> None:
        return

    node.Node._start_over = _start_over


@mutant
def cancelling_what_has_ended() -> None:
    """Cancelling a job that has ended takes its bundle's last jobs along. (It was so.)"""
    original = status.Status._view

    async def _view(self: status.Status, id_: str, index: int, record: Any) -> Any:
        view = await original(self, id_, index, record)
        if view.place == "finished" and not record.key.startswith(self._keys.claims):
            return msgspec.structs.replace(view, place="waiting")
        return view

    status.Status._view = _view


@mutant
def retried_over_its_siblings() -> None:
    """A failed job that is retried takes the name of the piece it came from, while its siblings still have it. (It was
    so.)"""
    original = operations.Operations._retry_one

    def _retry_one(self: operations.Operations, *arguments: Any) -> Write | None:
        write = original(self, *arguments)
        return None if write is None else _without(write, self._keys.bodies)

    operations.Operations._retry_one = _retry_one


# -- leases and takeover ---------------------------------------------------------------------------------------------


@mutant
def revoke_before_reaping() -> None:
    """The guard revokes the lease of a dead node while its runners are still at work."""
    async def die(self: process.Process, *, guard: bool) -> None:
        await self.stop()
        if guard:
            await self.revoke()
            await self.reap()
        else:
            self.runners.die()

    process.Process.die = die


@mutant
def done_ignored_at_takeover() -> None:
    """What a dead node had finished is run again."""
    def forgetful(claim: Claim) -> Token:
        return msgspec.structs.replace(token_of(claim), done="")

    takeover.token_of = forgetful


@mutant
def takeover_without_suspicion() -> None:
    """Taking over does not count how often a bundle was orphaned: what kills its nodes goes on killing them."""
    original = takeover._back

    async def _back(*arguments: Any) -> Write:
        write = await original(*arguments)
        ops: list[Put | Delete] = []
        for op in write.ops:
            token = takeover.decode(Token, op.value) if isinstance(op, Put) and b"/jobs/" in op.key else None
            if token is not None:
                op = Put(op.key, takeover.encode(msgspec.structs.replace(token, orphanings=0, lost=0)))
            ops.append(op)
        return Write(write.guards, tuple(ops))

    takeover._back = _back


@mutant
def deadline_from_the_answer() -> None:
    """The lease's deadline is counted from when the answer came, not from when it was asked for."""
    original = membership.Membership._renewed

    def _renewed(self: membership.Membership, sent: float, ttl_s: int) -> None:
        original(self, self._clock.monotonic(), ttl_s)

    membership.Membership._renewed = _renewed


@mutant
def a_lost_lease_is_not_noticed() -> None:
    """Neither the end of its lease nor that of its member key ends an identity."""
    async def _watch_self(self: node.Node, identity: Any) -> None:
        await asyncio.Future()

    original = membership.Membership.keep

    async def keep(self: membership.Membership) -> None:
        ledger = self._ledger

        class Deaf:
            async def keep_alive(self_, lease: int) -> int:
                try:
                    return await ledger.keep_alive(lease)
                except LeaseGone:
                    return self._ttl_s

            def __getattr__(self_, name: str) -> Awaitable[Any]:
                return getattr(ledger, name)  # type: ignore[no-any-return]

        self._ledger = Deaf()
        await original(self)

    node.Node._watch_self = _watch_self
    membership.Membership.keep = keep


@mutant
def compaction_loses_claims() -> None:
    """A node whose watch was overtaken by a compaction goes on from there without looking what it missed."""
    async def _list(self: executor.Executor) -> int:
        return (await self._ledger.read(b"/", keys_only=True)).revision

    executor.Executor._list = _list
