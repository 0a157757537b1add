"""Planted bugs: each takes one safeguard out of the production code, as somebody might who does not see what it is for.

They prove the instrument, not the product: the seeds of `make test` must find every one of them. Nothing in production
knows of them; `apply` replaces methods for the life of a process (campaigns fork one for each).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeAlias

import msgspec

from rota.client.errors import LeaseGone, LedgerError, WriteUnknown
from rota.cluster.ledger.commits import Commits, Verdict, Write, created
from rota.cluster.ledger.ledger import Condition, Delete, Event, Put, Target, Txn, TxnResult
from rota.cluster.master import carrying_out, snapshot
from rota.cluster.master.dispatch import (
    heavy,
    lane_ids,
    limits,
    members,
    pacing,
    placement,
    queues,
    rates,
    rooms,
    tenants,
)
from rota.cluster.master.dispatch.aggregator import Aggregator
from rota.cluster.master.dispatch.claims import Claims
from rota.cluster.master.dispatch.limits import Limits
from rota.cluster.master.dispatch.paces import Pace
from rota.cluster.master.dispatch.picture import Picture
from rota.cluster.master.dispatch.queues import UNLIMITED
from rota.cluster.master.duties import awaited, bulk, dependants, ends, flows, operation, scheduler, schedules, takeover
from rota.cluster.node import life
from rota.cluster.node.bodies import needs
from rota.cluster.node.claims import memory
from rota.cluster.node.claims import table as claims
from rota.cluster.node.claims.held import Held
from rota.cluster.node.intake import intake
from rota.cluster.node.membership import membership, own_record, reach
from rota.cluster.node.outcomes import progress, reporter, settle
from rota.cluster.node.running import executor, handback, leaving, running, volatile
from rota.cluster.state import directory, moves, splitting
from rota.cluster.state.keys import Keys
from rota.cluster.state.moves import claimed, waiting
from rota.cluster.state.records import Claim, Member, Token, decode, encode
from rota.outbox import relay
from rota.worker.pool import suspects

from . import process, scripted

# mypy: disable-error-code="method-assign, assignment, attr-defined"

Mutant: TypeAlias = Callable[[], None]
MUTANTS: dict[str, Mutant] = {}
"""By what is wrong with them."""


def mutant(apply: Mutant) -> Mutant:
    assert apply.__doc__ is not None
    MUTANTS[apply.__name__] = apply
    return apply


def _without(write: Write, prefix: bytes) -> Write:
    """A write less its conditions on keys that begin like this."""
    return Write(tuple(condition for condition in write.conditions if not condition.key.startswith(prefix)), write.ops)


def _change(module: Any, name: str, change: Callable[[Keys, Write], Write]) -> None:
    """One of the moves, wherever it is made."""
    original = getattr(module, name)

    def move(keys: Keys, *arguments: Any, **options: Any) -> Write:
        return change(keys, original(keys, *arguments, **options))

    setattr(module, name, move)


def _change_enqueues(change: Callable[[Keys, Write], Write]) -> None:
    _change(moves, "enqueue", change)


def _change_claims(change: Callable[[Keys, Write], Write]) -> None:
    """The write that gives a token to a node."""
    _change(moves, "claim", change)


# -- taking jobs in --------------------------------------------------------------------------------------------------


@mutant
def enqueue_without_member_guard() -> None:
    """A node that is dead can still take jobs in: what it sent arrives late."""
    _change_enqueues(lambda keys, write: _without(write, keys.nodes))


@mutant
def no_receipt() -> None:
    """Nothing remembers that a bundle was enqueued."""
    def change(keys: Keys, write: Write) -> Write:
        ops = tuple(op for op in write.ops if not op.key.startswith(keys.receipts))
        return Write(_without(write, keys.receipts).conditions, ops)

    _change_enqueues(change)


@mutant
def receipt_without_guard() -> None:
    """The receipt is written, but a repeat is not held against it."""
    _change_enqueues(lambda keys, write: _without(write, keys.receipts))


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
    _change_claims(lambda keys, write: Write(write.conditions, tuple(op for op in write.ops if isinstance(op, Put))))


@mutant
def claim_guarded_by_its_absence() -> None:
    """Claiming asks whether there is a claim, not whether the token still lies there: a late twin claims a job again
    that was handed back, and given to another."""
    def change(keys: Keys, write: Write) -> Write:
        (claim,) = (op for op in write.ops if isinstance(op, Put))
        return Write((*_without(write, keys.jobs).conditions, created(claim.key, 0)), write.ops)

    _change_claims(change)


@mutant
def claims_without_fence() -> None:
    """A master that has been succeeded goes on giving out jobs."""
    _change_claims(lambda keys, write: _without(write, keys.master))


@mutant
def claims_for_the_dead() -> None:
    """The node that is given a job need not be a member."""
    _change_claims(lambda keys, write: _without(write, keys.nodes))


@mutant
def dispatch_before_claims_are_known() -> None:
    """A new master reads the first page of each queue, and begins: it does not know what is claimed."""
    original = Picture.apply

    def apply(self: Picture, events: Iterable[Event], revision: int, now: float) -> None:
        known = (event for event in events if self.is_open or not event.record.key.startswith(self.keys.claims))
        original(self, known, revision, now)

    Picture.apply = apply


@mutant
def the_dead_do_not_count() -> None:
    """When a node is gone its claims count no more, though nobody has taken them over yet. (It was so.)"""
    original = Claims.see_node

    def see_node(self: Claims, event: Event) -> str | None:
        gone = original(self, event)
        for node in self.gone.values():
            for held in node.held.values():
                self._count(held, -held.pending)
        self.gone.clear()
        return gone

    Claims.see_node = see_node


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
    carrying_out.CarryingOut._instead = lambda self, verdict, key: 0


@mutant
def blocked_heads_do_not_block() -> None:
    """In a serial queue what has failed is given out again."""
    original = Aggregator._next_serial

    def _next_serial(self: Aggregator, queue: Any, now: float) -> Any:
        for window in queue.windows.values():
            for place, lane in window.places.items():
                lane.items[place].token = msgspec.structs.replace(lane.items[place].token, blocked=False)
        return original(self, queue, now)

    Aggregator._next_serial = _next_serial


@mutant
def limits_do_not_hold() -> None:
    """A task's limits are not looked at."""
    Limits.left_of_task = lambda self, task: UNLIMITED
    Limits.left_of_key = lambda self, task, key: UNLIMITED


@mutant
def keys_do_not_count() -> None:
    """A task's limit per key is not looked at."""
    Limits.left_of_key = lambda self, task, key: UNLIMITED


@mutant
def keys_unknown_to_a_new_master() -> None:
    """A new master counts the claims it finds, but not under which keys."""
    original = Picture._count_jobs

    def _count_jobs(self: Picture, held: Any, jobs: int) -> None:
        if not self.is_open:
            held.key = ""
        original(self, held, jobs)

    Picture._count_jobs = _count_jobs


@mutant
def queue_limits_unknown_to_a_new_master() -> None:
    """A new master counts the claims it finds by their tasks, but not by their queues."""
    original = Picture._count_jobs

    def _count_jobs(self: Picture, held: Any, jobs: int) -> None:
        original(self, held, jobs)
        if not self.is_open:
            self.queue(held.queue).running = 0

    Picture._count_jobs = _count_jobs


@mutant
def pieces_sort_as_text() -> None:
    """The pieces of a bundle are named .1, .10, .2: a serial queue runs them in that order. (It was so.)"""
    def piece_name(bundle: str, indexes: list[int]) -> str:
        return f"{splitting.whole(bundle)}.{min(indexes)}"

    splitting.piece_name = piece_name           # by which a bundle is split


@mutant
def a_split_in_levels_forgets_the_rest() -> None:
    """Of a wide bundle come as many pieces as one transaction takes, and no more."""
    def in_parts(indexes: list[int], size: int, most: int = splitting.PIECES_MAX) -> list[list[int]]:
        return [indexes[start : start + size] for start in range(0, len(indexes), size)][:most]

    splitting.in_parts = in_parts


@mutant
def split_loses_a_job() -> None:
    """The last job of a bundle is in none of its pieces."""
    original = waiting.pieces
    waiting.pieces = lambda *arguments: original(*arguments)[:-1] or original(*arguments)


@mutant
def work_waits_for_a_node() -> None:
    """A bundle larger than what is free anywhere waits until a node has nothing to do. (It was so.)"""
    original = placement._in_parts

    def _in_parts(gate: Any, item: Any, allowed: int, rooms: Sequence[Any], **options: Any) -> Any:
        return original(gate, item, allowed, [room for room in rooms if room.is_idle], **options) if any(
            room.is_idle for room in rooms
        ) else None

    placement._in_parts = _in_parts


@mutant
def what_was_given_ahead_stays() -> None:
    """A node keeps what it was given and does not begin, though others have slots."""
    running.Running._review_after = lambda self, held, seconds: None


@mutant
def names_are_never_over() -> None:
    """The master keeps something of every queue that ever held a job. (It was so.)"""
    queues.Queue.is_over = lambda self, revision: False


@mutant
def keys_are_never_over() -> None:
    """Likewise, of every key of a limit, and of every task."""
    def _add(counts: dict[Any, int], name: Any, jobs: int) -> None:
        counts[name] = counts.get(name, 0) + jobs

    limits._add = _add


@mutant
def tokens_say_how_a_task_runs() -> None:
    """A job goes to a node that runs its task in the mode of the one who enqueued it, whatever that node's code says.
    (It was so.)"""
    def mode_of(self: Member, kind: Any) -> Any:
        return kind.mode if kind.function or kind.task in self.tasks else None

    original = lane_ids.lane_of
    queues.lane_of = lambda token: original(token)._replace(mode=token.mode)
    Member.mode_of = mode_of


@mutant
def slow_queues_hold_up_others() -> None:
    """No queue is ever given a spare slot. (It was so.)"""
    Aggregator._lend = lambda self, commands, now: None


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

    async def send(self: reporter.Reporter, held: Held, settlement: Any) -> None:
        while not settlement.leased:
            try:
                settlement = settlement.with_leases([
                    await kept.bucket.lease(len(kept.keys)) for kept in settlement.kept
                ])
            except LedgerError:
                await asyncio.sleep(0.2)
        condition = created(held.record.key, held.record.create_revision)
        await self._commits.submit(Write((self._context.member, condition), settlement.ops))
        if settlement.final:
            self._on_end(held)

    def advance(self: reporter.Reporter, held: Held) -> None:
        while held.queue and not self.over:
            self._group.create_task(send(self, held, held.queue.popleft()), name="mutant")

    Commits.__init__ = __init__
    reporter.Reporter.advance = advance


@mutant
def outcome_guarded_by_presence() -> None:
    """An outcome asks whether there is a claim, not whether it is the one it was run under."""
    reporter.Reporter.conditions = lambda self, held: (
        self._context.member, Condition(held.record.key, Target.VERSION, ">", 0)
    )


@mutant
def bitmap_guarded_by_creation() -> None:
    """A late twin of a bitmap puts an older one back. (It was so.)"""
    reporter.Reporter.conditions = lambda self, held: (
        self._context.member, created(held.record.key, held.record.create_revision)
    )


@mutant
def a_repeat_that_fails_has_failed() -> None:
    """A write that was repeated, and then found its condition broken, is taken for refused: it was the first try that
    broke it."""
    def took_place(held: Held, verdict: Verdict) -> bool:
        if verdict.applied:
            held.mod_revision = verdict.revision
        return verdict.applied

    reporter.Reporter.took_place = staticmethod(took_place)


@mutant
def ended_claims_begin_again() -> None:
    """The watch shows a claim whose end is already committed, and it is begun. (It was so.)"""
    claims.Claims.note_ended = lambda self, bundle, create_revision: None


@mutant
def forgetting_by_name() -> None:
    """When a claim has ended, the bundle is forgotten, even if it has come again under another claim. (It was so.)"""
    original = claims.Claims.forget

    def forget(self: claims.Claims, held: Held) -> None:
        original(self, held)
        self._by_bundle.pop(held.bundle, None)

    claims.Claims.forget = forget


@mutant
def handing_back_what_runs() -> None:
    """After an outage a node hands back all its claims, also those that came and were begun since. (It was so.)"""
    original = handback.HandBack.all
    handback.HandBack.all = lambda self, *, but_held, **more: original(self, but_held=False, **more)


@mutant
def handed_back_in_a_storm() -> None:
    """A node that may not start a job hands it back, and gets it again at once, and hands it back. (It was so.)"""
    original = running.Running.submit

    def submit(self: running.Running, held: Held) -> None:
        if self._may_start():
            original(self, held)
        else:
            self.release([held])

    running.Running.submit = submit


@mutant
def nothing_is_handed_back() -> None:
    """After an outage that killed its runners a node goes on as if they were still at it."""
    async def start_over(self: life.Life) -> None:
        return

    life.Life.start_over = start_over


@mutant
def retried_over_its_siblings() -> None:
    """A failed job that is retried takes the name of the piece it came from, while its siblings still have it. (It was
    so.)"""
    _change(moves, "revive", lambda keys, write: _without(write, keys.bodies))


@mutant
def operations_die_with_their_master() -> None:
    """A new master does not look for bulk operations that have not ended: only those begun in its term are done."""
    async def nothing(*arguments: Any, **named: Any) -> AsyncIterator[Any]:
        for record in ():
            yield record

    original = bulk.Bulk.run

    async def run(self: bulk.Bulk) -> None:
        scan, bulk.scan = bulk.scan, nothing
        running = asyncio.ensure_future(original(self))
        await asyncio.sleep(0)
        bulk.scan = scan
        try:
            await running
        finally:
            running.cancel()

    bulk.Bulk.run = run


@mutant
def operations_without_their_record() -> None:
    """What an operation writes is not guarded by its record: a late twin acts for one that has ended."""
    original = operation.Writer.submit

    async def submit(self: operation.Writer, writes: list[Write]) -> Any:
        operations = self._context.keys.operations
        return await original(self, [
            write if any(op.key.startswith(operations) for op in write.ops) else _without(write, operations)
            for write in writes
        ])

    operation.Writer.submit = submit


@mutant
def ticks_without_their_record() -> None:
    """What a tick makes is not guarded by the schedule as it was seen: a late twin, or another master, fires anew."""
    _change(moves, "fire", lambda keys, write: _without(write, keys.schedules))


@mutant
def a_new_master_begins_now() -> None:
    """What was due while there was no master is not made up for, whatever the schedule says."""
    original = schedules.Schedules._take

    def _take(self: schedules.Schedules, record: Any, *, deleted: bool = False) -> None:
        name = self._keys.parse_schedule(record.key)
        known = self._known.get(name or "")
        original(self, record, deleted=deleted)
        if known is None and (now := self._known.get(name or "")) is not None:
            now.record = msgspec.structs.replace(now.record, tick=max(now.record.tick, self._now_ms()))

    schedules.Schedules._take = _take


@mutant
def nobody_waits_for_the_last() -> None:
    """A job that waits for others goes as soon as all but one of those of a bundle have ended."""
    original = dependants.read

    async def read(ledger: Any, keys: Any, seal: Any, bundle: str, jobs: int) -> Any:
        became = await original(ledger, keys, seal, bundle, jobs)
        left = [index for index in range(jobs.bit_length()) if jobs >> index & 1 and index not in became.badly]
        missing = [index for index in left if index not in became.well]
        return became if len(missing) != 1 else msgspec.structs.replace(became, well=became.well | {missing[0]: None})

    dependants.read = read


@mutant
def sections_are_always_there() -> None:
    """A job of a flow begins, though the rest of it is not stored yet."""
    flows.Sections.is_there = lambda self, section: True  # type: ignore[method-assign]


@mutant
def flows_are_over_with_their_failed() -> None:
    """A flow is over though a person may retry jobs of it."""
    original = flows.Flows.note

    async def note(self: Any, waiting: Any, upstream: str, became: Any) -> bool:
        return await original(self, waiting, upstream, msgspec.structs.replace(became, failed=0))

    flows.Flows.note = note  # type: ignore[method-assign]


# -- when and how often jobs run -------------------------------------------------------------------------------------


@mutant
def delays_are_forgotten() -> None:
    """A job that is to run later lies in its queue at once."""
    original = intake.Intake._write

    async def _write(self: intake.Intake, bundle: Any, *rest: Any) -> Write:
        return await original(self, msgspec.structs.replace(bundle, delay_s=0.0), *rest)

    intake.Intake._write = _write


@mutant
def due_before_its_time() -> None:
    """The master moves what is due within the next half second."""
    original = scheduler.Scheduler.move_due

    class Ahead:
        def __init__(self, clock: Any) -> None:
            self._clock = clock

        def wall(self) -> float:
            return float(self._clock.wall() + 0.5)

    async def move_due(self: scheduler.Scheduler) -> None:
        clock = self._clock
        if not isinstance(clock, Ahead):
            self._clock = Ahead(clock)
        await original(self)

    scheduler.Scheduler.move_due = move_due


@mutant
def retries_at_once() -> None:
    """A job that is to be tried again later is tried again at once."""
    original = moves.retry

    def retry(keys: Any, seal: Any, key: bytes, bundle: str, body: bytes, done: int, again: Any) -> moves.Ops:
        return original(keys, seal, key, bundle, body, done, [(indexes, token, 0) for indexes, token, _ in again])

    moves.retry = retry


@mutant
def serial_retries_at_once() -> None:
    """In a serial queue the head is tried again without waiting."""
    original = moves.retry_in_place
    moves.retry_in_place = lambda keys, key, bundle, token, not_before_ms: original(keys, key, bundle, token, 0)


@mutant
def a_stream_waits_for_somebody_else() -> None:
    """What came in a stream has no time of its own: it is given out when something else happens, or is looked for."""
    original = pacing.Pacing.due

    def due(self: pacing.Pacing, now: float) -> float | None:
        return original(self, now) if self._at_once else None

    pacing.Pacing.due = due


@mutant
def patience_without_end() -> None:
    """A write that may wait for company waits until it comes."""
    original = Commits._may_start

    def may_start(self: Commits) -> bool:
        return (bool(self._tasks) or not self._patience_s) and original(self)

    Commits._may_start = may_start


@mutant
def what_is_due_passes_the_tail_by() -> None:
    """What comes into a serial queue late does not move its tail: a node appends before it. (It was so.)"""
    original = ends.Ends.__init__

    def __init__(self: ends.Ends, ledger: Any, keys: Keys, commits: Any, is_serial: Any) -> None:
        original(self, ledger, keys, commits, lambda queue: False)

    ends.Ends.__init__ = __init__


@mutant
def a_lost_node_costs_an_attempt() -> None:
    """Jobs that are taken over have one attempt less."""
    _change_orphans(lambda claim: msgspec.structs.replace(claim, attempt=claim.attempt + 1))


def _change_orphans(change: Callable[[Claim], Claim]) -> None:
    """The claims that are taken over."""
    original = moves.take_over

    def take_over(keys: Any, who: Any, at: Any, bundle: str, claim: Claim, **options: Any) -> Write:
        return original(keys, who, at, bundle, change(claim), **options)

    moves.take_over = take_over


def _change_tasks_at_takeover(**changes: Any) -> None:
    original = takeover._back

    async def _back(
        context: Any, who: Any, record: Any, tasks: dict[str, Any], *rest: Any
    ) -> Write | None:
        tasks = {name: msgspec.structs.replace(task, **changes) for name, task in tasks.items()}
        return await original(context, who, record, tasks, *rest)

    takeover._back = _back


@mutant
def orphans_do_not_wait() -> None:
    """A task's `requeue_delay` is not looked at."""
    _change_tasks_at_takeover(requeue_delay_s=0.0)


@mutant
def orphans_run_again() -> None:
    """A task's `on_orphan` is not looked at when its node is lost."""
    _change_tasks_at_takeover(on_orphan="requeue")


@mutant
def starts_are_not_marked() -> None:
    """What must not run twice is begun before the store says so."""
    running.must_not_repeat = lambda tasks, claim: False


@mutant
def everybody_pays_for_a_runner() -> None:
    """When a runner dies, all that it ran have used up an attempt. (It was so.)"""
    def died(self: suspects.Suspects, started: Sequence[suspects.Sent], *, alone: bool) -> suspects.Verdict:
        return suspects.Verdict(list(started), [])

    suspects.Suspects.died = died


# -- persistence levels ----------------------------------------------------------------------------------------------


@mutant
def outcomes_before_the_claim() -> None:
    """Level `delayed`: outcomes do not wait until the claim is stored."""
    original = executor.Executor.begin

    def begin(self: executor.Executor, bundle: str, *rest: Any) -> None:
        original(self, bundle, *rest)
        if (held := self.claims.of(bundle)) is not None:
            held.writing = False

    executor.Executor.begin = begin


@mutant
def begun_again_by_a_repeat() -> None:
    """Level `delayed`: a node that is asked again begins again. (It was so.)"""
    original = executor.Executor.begin

    def begin(self: executor.Executor, bundle: str, *rest: Any) -> None:
        self.claims.may_begin_again(bundle)
        self.claims._by_bundle.pop(bundle, None)
        original(self, bundle, *rest)

    executor.Executor.begin = begin


@mutant
def a_kill_forgets_what_ended() -> None:
    """Level `delayed`: what had ended before its claim was stored is forgotten with the runners. (It was so.)"""
    leaving.Leaving._begin_again_when_stored = leaving.Leaving._flush_before_release


@mutant
def unsure_is_not_stored() -> None:
    """Level `delayed`: a claim whose write was repeated, and then found its receipt, is taken for not written. (It was
    so.)"""
    original = executor.Executor._look_for_own

    async def _look_for_own(self: executor.Executor, held: Held, verdict: Verdict | None) -> None:
        await original(self, held, None)

    executor.Executor._look_for_own = _look_for_own


@mutant
def delayed_begins_what_must_not_run_twice() -> None:
    """Level `delayed`: jobs that must not run twice are begun before they are stored: a repeat at another node begins
    them, too. (It was so.)"""
    original = intake.Intake.__init__

    class Lenient:
        def __init__(self, known: directory.Directory) -> None:
            self._known = known

        @property
        def tasks(self) -> dict[str, Any]:
            return {
                name: msgspec.structs.replace(task, on_orphan="requeue") for name, task in self._known.tasks.items()
            }

        def __getattr__(self, name: str) -> Any:
            return getattr(self._known, name)

    def __init__(self: intake.Intake, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        self._directory = Lenient(self._directory)

    intake.Intake.__init__ = __init__


@mutant
def memory_outlives_its_runners() -> None:
    """Level `none`: what was in runners that were killed is waited for, for ever. (It was so.)"""
    volatile.Volatile.lose = lambda self: None


@mutant
def memory_takes_a_bundle_twice() -> None:
    """Level `none`: a repeat is taken for another bundle."""
    original = volatile.Volatile.take

    def take(self: volatile.Volatile, bundle: Any, *rest: Any) -> Any:
        self._results.drop(bundle.bundle)
        return original(self, bundle, *rest)

    volatile.Volatile.take = take


@mutant
def memory_forgets_retries() -> None:
    """Level `none`: a job that is to be tried again is not."""
    volatile.Volatile._again = lambda self, held, index: None


@mutant
def memory_is_stored() -> None:
    """Level `none` is taken for level `durable`."""
    original = intake.Intake.enqueue

    async def enqueue(self: intake.Intake, bundles: list[Any], seen: int) -> Any:
        return await original(self, [
            msgspec.structs.replace(bundle, level="durable") if bundle.level == "none" else bundle
            for bundle in bundles
        ], seen)

    intake.Intake.enqueue = enqueue


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
    _change_orphans(lambda claim: msgspec.structs.replace(claim, done=""))


@mutant
def takeover_without_suspicion() -> None:
    """Taking over does not count how often a bundle was orphaned: what kills its nodes goes on killing them."""
    def trusting(keys: Keys, write: Write) -> Write:
        ops: list[Put | Delete] = []
        for op in write.ops:
            token = decode(Token, op.value) if isinstance(op, Put) and op.key.startswith(keys.jobs) else None
            if token is not None:
                op = Put(op.key, encode(msgspec.structs.replace(token, orphanings=0, lost=0)))
            ops.append(op)
        return Write(write.conditions, tuple(ops))

    _change(moves, "take_over", trusting)


@mutant
def deadline_from_the_answer() -> None:
    """The lease's deadline is counted from when the answer came, not from when it was asked for."""
    original = membership.Membership._renewed

    def _renewed(self: membership.Membership, sent: float, ttl_s: int) -> None:
        original(self, self._clock.monotonic(), ttl_s)

    membership.Membership._renewed = _renewed


@mutant
def a_shut_out_node_keeps_its_lease() -> None:
    """It was so: a node that etcd refused everything but keepalives stayed a member, and master."""
    setattr(reach.Reach, "shut_out", property(lambda self: False))  # noqa: B010 - it is one


@mutant
def runners_begin_past_the_deadline() -> None:
    """It was so: a runner that goes on before its guard, after the machine stood still, begins the next job."""
    scripted.ScriptedRunners._may_begin = lambda self: not self._frozen


@mutant
def a_lost_lease_is_not_noticed() -> None:
    """Neither the end of its lease nor that of its member key ends an identity."""
    async def watch(self: own_record.OwnRecord) -> None:
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

    own_record.OwnRecord.watch = watch
    membership.Membership.keep = keep


@mutant
def compaction_loses_claims() -> None:
    """A node whose watch was overtaken by a compaction goes on from there without looking what it missed."""
    executor.Executor._compare = lambda self, listing: None


# -- what is unique, what expires ------------------------------------------------------------------------------------


@mutant
def unique_keys_without_guard() -> None:
    """An enqueue takes its unique key, whoever has it."""
    _change_enqueues(lambda keys, write: _without(write, keys.uniques))


@mutant
def unique_keys_outlive_their_jobs() -> None:
    """A job that ends under a node keeps its key."""
    claimed.freed = lambda keys, token: ()


@mutant
def handed_back_while_it_is_marked() -> None:
    """A node that leaves does not wait for the write that gives up a key. (It was so.)"""
    Held.is_settled = property(lambda self: not (self.writing or self.queue or self.outcomes or self.retries))


@mutant
def replaced_though_it_has_moved() -> None:
    """What takes the place of a job does not look whether it still lies there."""
    original = moves.replace

    def replace(keys: Keys, at: Condition, bundle: str, by: Write, told: Iterable[Put] = ()) -> Write:
        write = original(keys, at, bundle, by, told)
        return Write(tuple(condition for condition in write.conditions if condition != at), write.ops)

    moves.replace = replace


@mutant
def nobody_looks_at_expiries() -> None:
    """The master gives out what has expired, and the runners begin it."""
    def _expire(self: Aggregator, commands: list[Any], budget: int) -> None:
        for _ in self._expiries.due(self.wall_ms):
            pass

    Aggregator._expire = _expire
    scripted.ScriptedRunners._is_late = lambda self, work: False


@mutant
def a_retry_never_expires() -> None:
    """What is tried again has lost the time by which it has to begin."""
    original = settle._again
    settle._again = lambda context, held, group: msgspec.structs.replace(original(context, held, group), expires=0)


@mutant
def what_slept_is_not_told() -> None:
    """Where a job sleeps and others of its bundle go on, its claim does not say so: when its node is lost, it expires
    in the midst of what it does. (It was so.)"""
    Held.asleep = property(lambda self: 0)


@mutant
def a_row_is_deleted_before_it_is_moved() -> None:
    """A relay that dies in between has lost it."""
    original = relay.Relay._send

    async def send(self: relay.Relay, engine: Any, frame: Any, over: list[int]) -> Any:
        await self._db(self._rows.delete, [row.id for row, _ in frame])
        return await original(self, engine, frame, over)

    relay.Relay._send = send


@mutant
def a_wait_is_never_over() -> None:
    """What waits for other jobs until a time at the most is not woken then."""
    awaited.Alarms.set = lambda self, key, until_ms: None


@mutant
def a_wait_is_over_at_once() -> None:
    """It is woken before its time, while they run."""
    original = awaited.Alarms.set
    awaited.Alarms.set = lambda self, key, until_ms: original(self, key, min(until_ms, 1))


@mutant
def a_heavy_job_takes_one_slot() -> None:
    """The master counts a job that takes several slots as one."""
    original = members.NodeLoad.hold

    def hold(self: members.NodeLoad, bundle: str, held: Any) -> None:
        held.weight = 1
        original(self, bundle, held)

    members.NodeLoad.hold = hold
    heavy.Heavy.has_room = lambda self, gate: True
    heavy.Heavy.place = lambda self, gate, item, allowed, now: placement.place(
        gate, item, allowed, careful=True, pace=Pace.UNKNOWN, now=now
    )


@mutant
def a_bound_without_guard() -> None:
    """An enqueue to a queue that takes so many only does not look whether others enqueue at the same time."""
    _change_enqueues(lambda keys, write: _without(write, keys.bounds))


@mutant
def tenants_take_no_turns() -> None:
    """Who has enqueued first goes first, whoever it is."""
    tenants.Tenants.given = lambda self, tenant, slots: None


@mutant
def nothing_is_kept_for_what_is_heavy() -> None:
    """Where light jobs take each slot as it comes free, a heavy one waits for ever."""
    heavy.Heavy._wait = lambda self, gate, now: None


@mutant
def what_is_heavy_keeps_both_kinds() -> None:
    """A node that is kept for a heavy job is given nothing of the other kind, either."""
    original = heavy.Heavy._wait

    def _wait(self: heavy.Heavy, gate: Any, now: float) -> None:
        original(self, gate, now)
        if gate.id in self._kept:
            self._kept[gate.id][1].kept.update(members.MODES)

    heavy.Heavy._wait = _wait


@mutant
def progress_outlives_its_job() -> None:
    """What a job said of itself stays, under the lease of a node that lives, when the job has ended."""
    progress.Progress.ended = lambda self, outcomes: None
    progress.Progress._sweep = lambda self: None


@mutant
def a_new_master_has_another_burst() -> None:
    """What the master before wrote of a rate counts for nothing."""
    rates.Rates.see = lambda self, event: True


@mutant
def rates_run_ahead_of_the_store() -> None:
    """What is under way to the store counts as if it had been there at once."""
    original = rates.Rates.take

    def take(self: rates.Rates, task: str, key: str, queue: str, settings: Any, jobs: int) -> Any:
        names = original(self, task, key, queue, settings, jobs)
        self.settled(names, jobs, 0.0, begun=True)
        return ()

    rates.Rates.take = take


# -- looking at little -----------------------------------------------------------------------------------------------


@mutant
def a_new_master_begins_where_the_last_one_was() -> None:
    """What lies before that, since it came back or had to wait, is not read."""
    original = snapshot.read_lane

    async def read_lane(
        ledger: Any, keys: Keys, queue: str, priority: int, *, first_stop: int = 0, **how: Any
    ) -> Any:
        return await original(
            ledger, keys, queue, priority, after=keys.lane_from(queue, priority, first_stop), **how
        )

    snapshot.read_lane = read_lane


@mutant
def room_that_comes_free_is_not_told() -> None:
    """Who had no room when it was last looked at is not looked at again."""
    rooms.Gains.note = lambda self, node: None


# -- what jobs remember ----------------------------------------------------------------------------------------------


@mutant
def steps_without_their_claim() -> None:
    """A run that is void stores what it has done all the same."""
    original = moves.remember

    def remember(*arguments: Any) -> Write:
        write = original(*arguments)
        return Write(tuple(one for one in write.conditions if b"/claims/" not in one.key), write.ops)

    moves.remember = remember


@mutant
def what_was_remembered_is_not_told() -> None:
    """A node does not look what the jobs that it is given have done elsewhere."""
    needs.Memory = lambda *arguments: memory.Memory({})


@mutant
def memories_outlive_their_jobs() -> None:
    """What a job remembers stays when it has ended."""
    moves.forget_steps = lambda *arguments: ()


@mutant
def what_came_late_stays() -> None:
    """A step that was stored after its job had ended is deleted by that node only, not when it is lost meanwhile."""
    Token.late_indexes = property(lambda token: [])
