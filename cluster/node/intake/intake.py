"""Taking jobs in: an enqueue is acknowledged when body, token and receipt are committed, in one transaction.

Any node does this, without a master. The receipt answers a repeat of the same bundle after it was finished, split or
moved; the order is the newest store revision that this node or the client has seen.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import msgspec

from rota.client.errors import (
    EnqueueError,
    InvalidJob,
    LeaseGone,
    LedgerError,
    NoSpace,
    Overloaded,
    QueueFull,
    TransactionInvalid,
    UnknownTask,
)
from rota.client.ids import BUNDLE, NAME_RULE, TASK_CHARS_MAX, is_task_name, job_id
from rota.client.model import (
    BUNDLE_BYTES_MAX,
    JOBS_PER_BUNDLE_MAX,
    PRIORITY_MAX,
    PRIORITY_MIN,
    UPSTREAM_MAX,
    Enqueue,
    FlowTerms,
    Header,
    Mode,
    Receipt,
    Terms,
    Upstream,
)
from rota.client.options.checks import KEY_CHARS_MAX
from rota.client.wire.codec import BODY_BYTES_MAX, enqueue_digest

from ...context import IdentityContext
from ...ledger.buckets import Bucket
from ...ledger.commits import Verdict, Write, created, unmodified
from ...ledger.ledger import Condition
from ...state import moves
from ...state.directory import Directory
from ...state.keys import ORDER_DIGITS, is_name, shown
from ...state.records import (
    Claim,
    QueueRecord,
    ReceiptRecord,
    Token,
    awaiting_of,
    claim_of,
    decode,
    due_by,
    tail_of,
)
from ...state.uniques import Hold, Holder
from ...state.upstream import indexes, unknown
from ..bodies.cache import BodyCache, VerifiedBody
from ..membership.own_record import OwnRecord
from .bounds import Bounds
from .sections import Sections, check, gone
from .uniques import Uniques, with_terms

DELAY_S_MAX = 10 * 365 * 86_400
CONFLICTS_MAX = 20
"""How often one enqueue looks at who has its unique key, where that changes all the time."""

BACKLOG_MAX = 20_000
"""Enqueues waiting for the store in this node; beyond that it asks clients to come back."""

TAILS_MAX = 10_000
"""Serial queues whose tails are kept in mind."""

SEEN_MAX = 10 ** (ORDER_DIGITS - 1)
"""A revision that no store will ever reach: a client that says it has seen a later one does not tell the truth."""

DURABLE_ONLY = ("unique", "expires_s", "after", "requires", "weight", "fair_key", "rate_key")
"""Terms of an enqueue that what starts at once cannot keep."""

FUNCTION, PYTHON = re.compile(r"[0-9a-f]{64}\Z"), re.compile(r"[0-9]{1,2}\.[0-9]{1,3}\Z")


class Intake:
    """One identity's enqueues."""

    def __init__(
        self, context: IdentityContext, directory: Directory, receipts: Bucket, cache: BodyCache, *,
        volatile: Callable[[Enqueue, VerifiedBody, EnqueueError | None], Receipt | EnqueueError],
        begin: Callable[[str, Claim, VerifiedBody, asyncio.Future[Verdict]], None],
        record: OwnRecord,
    ) -> None:
        self._context = context
        self._ledger = context.ledger
        self._commits = context.commits
        self._keys = context.keys
        self._clock = context.clock
        self._directory = directory
        self._member = context.member
        self._receipts = receipts
        self._cache = cache
        self._seal = context.seal
        self._volatile = volatile
        self._begin = begin
        self._node = context.node
        self._record = record
        self._uniques = Uniques(context)
        self._bounds = Bounds(context.ledger, context.keys, context.clock)
        self._tails: dict[str, tuple[int, int]] = {}        # queue -> (mod revision, order) of its tail
        self._tail_locks: dict[str, asyncio.Lock] = {}
        self.full: str | None = None
        self.nearly_full: str | None = None
        """Why enqueues are refused for now, or None: the store takes nothing, or soon will not."""
        self.taken = 0

    async def enqueue(self, bundles: list[Enqueue], seen_revision: int) -> list[Receipt | EnqueueError]:
        if shedding := self.full or self.nearly_full:
            return [Overloaded(shedding, 5.0) for _ in bundles]
        if self._commits.backlog > BACKLOG_MAX:
            return [Overloaded("this node has too many enqueues waiting for the store", 1.0) for _ in bundles]
        if not 0 <= seen_revision < SEEN_MAX:
            return [InvalidJob(f"{seen_revision} is no revision of a store") for _ in bundles]
        order = max(seen_revision, self._commits.revision, self._directory.revision)
        waiting: list[tuple[asyncio.Future[Verdict], int] | Receipt | EnqueueError] = []
        bodies: list[VerifiedBody | None] = []
        sections, refused = Sections(self._context, self._commits), dict[str, EnqueueError]()
        bundles = list(bundles)
        for number, bundle in enumerate(bundles):
            body = None
            try:
                body = await self._check(bundle)
                settings = self._directory.queues.get(bundle.queue)
                refusal = self._level_refusal(bundle, settings)
                mode = self._own_mode(bundle) if bundle.level == "delayed" else None
                if bundle.level == "delayed" and mode is None and refusal is None:
                    bundle = bundles[number] = msgspec.structs.replace(bundle, level="durable")  # others will begin it
                if bundle.level == "none":
                    waiting.append(self._volatile(bundle, body, refusal or self._not_here(bundle)))
                elif refusal is not None:
                    waiting.append(await self._repeated(bundle) or refusal)
                elif bundle.terms is not None and bundle.terms.flow is not None:
                    write = await self._write(bundle, body, order, None, None, None)
                    waiting.append((await sections.submit(write, bundle.terms.flow), order))
                elif mode is not None:
                    waiting.append((await self._start_now(bundle, body, order, mode), order))
                else:
                    waiting.append(await self._store(bundle, body, order))
            except QueueFull as error:
                assert body is not None
                waiting.append(await self._without_room(bundle, body, order, error))
            except EnqueueError as error:
                waiting.append(error)
            except LedgerError as error:
                waiting.append(_refused(error))
            bodies.append(body)
            if bundle.terms is not None and bundle.terms.flow is not None and isinstance(waiting[-1], EnqueueError):
                refused.setdefault(bundle.terms.flow.section, waiting[-1])
        await sections.finish(refused)
        return [
            entry if isinstance(entry, EnqueueError | Receipt) else await self._answer(bundle, entry[1], entry[0], body)
            for bundle, entry, body in zip(bundles, waiting, bodies, strict=True)
        ]

    async def _store(
        self, bundle: Enqueue, body: VerifiedBody, order: int, hold: Hold | None = None, over: Holder | None = None
    ) -> tuple[asyncio.Future[Verdict], int]:
        """Begin to store it. `hold`: the key that it wants for itself, as it was seen; `over`: whose place it takes."""
        if hold is None and bundle.terms is not None and bundle.terms.unique:
            hold = await self._uniques.hold(bundle, created(self._uniques.key(bundle), 0))
        settings = self._directory.queues.get(bundle.queue)
        if settings is not None and (settings.serial or settings.max_waiting is not None):
            return await self._append(bundle, body, order, hold, over, settings)
        return self._commits.submit(await self._write(bundle, body, order, hold, over)), order

    async def _without_room(
        self, bundle: Enqueue, body: VerifiedBody, order: int, full: QueueFull
    ) -> tuple[asyncio.Future[Verdict], int] | Receipt | EnqueueError:
        """Its queue is full: but it may be stored already, and what takes the place of another job needs no room."""
        try:
            if (repeated := await self._repeated(bundle)) is not None:
                return repeated
            if bundle.terms is not None and bundle.terms.unique:
                met = await self._uniques.met(bundle)
                if isinstance(met, Receipt | EnqueueError):
                    return met
                if met[1] is not None:
                    return await self._store(bundle, body, order, *met)
        except LedgerError as error:
            return _refused(error)
        return full

    def _level_refusal(self, bundle: Enqueue, settings: QueueRecord | None) -> InvalidJob | None:
        """What starts at once cannot wait for a limit, for its turn or for a time. (A repeat may find other settings
        than the first try, which was stored: it is not refused.)"""
        if bundle.level == "durable":
            return None
        task = self._directory.tasks.get(bundle.task)
        limited = task is not None and (task.weight > 1 or any(limit is not None for limit in (
            task.max_concurrency, task.max_per_key, task.rate, task.rate_per_key
        )))
        if bundle.terms is not None and any(getattr(bundle.terms, name) for name in DURABLE_ONLY):
            return InvalidJob(
                f"what is unique, expires, waits for others, or has a weight, labels, a fair or a rate key is stored "
                f"durably; persistence level {bundle.level!r} is not (task {bundle.task})"
            )
        if limited or bundle.delay_s or (settings is not None and settings != QueueRecord()):
            return InvalidJob(
                f"persistence level {bundle.level!r} starts a job at once: it cannot be combined with a delay, a "
                f"limit, or a queue that is serial, paused or limited (task {bundle.task}, queue {bundle.queue})"
            )
        return None

    def _own_mode(self, bundle: Enqueue) -> Mode | None:
        """How this node runs it; None if it does not: what is `delayed` waits in its queue then, for one that does."""
        member = self._record.member
        if not member.serves(bundle.queue) or not member.slots(bundle):
            return None
        return member.mode_of(bundle)

    def _not_here(self, bundle: Enqueue) -> EnqueueError | None:
        """What is never stored runs here, or is refused. (Code that is shipped always is.)"""
        if bundle.function or self._own_mode(bundle) is not None:
            return None
        if any(member.serves(bundle.queue) and member.slots(bundle) for member in self._directory.members.values()):
            return Overloaded(f"this node does not run task {bundle.task[:200]}, others do; try another", 0.05)
        return InvalidJob(
            f"persistence level 'none' needs a node that runs task {bundle.task[:200]}: no node that serves queue "
            f"{bundle.queue} has its code, and slots for it"
        )

    async def _start_now(
        self, bundle: Enqueue, body: VerifiedBody, order: int, mode: Mode
    ) -> asyncio.Future[Verdict]:
        """Level `delayed`: the jobs start while body and this node's own claim are being written. Jobs that must not
        run twice wait for that: a repeat at another node would start them too."""
        token = msgspec.structs.replace(self._token(bundle, body, order), mode=mode)
        lease = self._receipts.take() or await self._receipts.lease()
        claim = claim_of(token, 0)
        task = self._directory.tasks.get(bundle.task)
        once = task is not None and task.on_orphan == "fail"
        if once:
            claim = msgspec.structs.replace(claim, started=True)
            self._cache.put(bundle.bundle, body)
        future = self._commits.submit(moves.enqueue_claimed(
            self._keys, (self._member,), bundle.bundle, claim, self._node, bundle.body,
            enqueue_digest(bundle.body).hex(), lease,
        ))
        if not once:
            self._begin(bundle.bundle, claim, body, future)
        return future

    async def _append(
        self, bundle: Enqueue, body: VerifiedBody, order: int, hold: Hold | None, over: Holder | None,
        settings: QueueRecord,
    ) -> tuple[asyncio.Future[Verdict], int]:
        """Enqueue one after the other: at the very end of a serial queue, behind whatever any client was told to be
        enqueued (the queue's tail holds the order of its last job, and guards the next); or to a queue that takes so
        many only."""
        tail, counter = self._keys.tail(bundle.queue), self._keys.bound(bundle.queue)
        async with self._tail_locks.setdefault(bundle.queue, asyncio.Lock()):
            while True:
                at: Condition | None = None
                bound = await self._bounds.room(bundle, settings) if over is None else None
                if settings.serial:
                    known = await self._end_of(bundle.queue)
                    order, at = max(order, known[1] + 1), unmodified(tail, known[0])
                future = self._commits.submit(await self._write(bundle, body, order, hold, over, at, bound))
                try:
                    verdict = await future
                except LedgerError:
                    self._bounds.changed(bundle.queue)
                    raise
                if verdict.applied and settings.serial:
                    self._tails[bundle.queue] = (verdict.revision, order)
                if verdict.applied and bound is not None:
                    self._bounds.took(bundle, verdict.revision)
                elif bound is not None:
                    self._bounds.changed(bundle.queue)
                if verdict.applied or verdict.failed is None or verdict.failed.key not in (tail, counter):
                    break
        if len(self._tail_locks) > TAILS_MAX:
            self._forget_tails()
        return future, order

    async def _end_of(self, queue: str) -> tuple[int, int]:
        """(mod revision, order) of its tail. It is known again when what follows is stored."""
        known = self._tails.pop(queue, None)
        if known is None:
            page = await self._ledger.read(self._keys.tail(queue))
            known = (page.records[0].mod_revision, tail_of(page.records[0])) if page.records else (0, 0)
        return known

    def _forget_tails(self) -> None:
        """Of queues that nobody enqueues to now: what they were can be read again."""
        self._tail_locks = {queue: lock for queue, lock in self._tail_locks.items() if lock.locked()}
        self._tails = {queue: tail for queue, tail in self._tails.items() if queue in self._tail_locks}

    async def _check(self, bundle: Enqueue) -> VerifiedBody:
        """Refuse what could never run, with its reason, before anything is stored."""
        self._check_route(bundle)
        if len(bundle.body) > BODY_BYTES_MAX:
            raise InvalidJob(f"a bundle holds 1 to {JOBS_PER_BUNDLE_MAX} jobs and {BUNDLE_BYTES_MAX:,} bytes")
        header, payloads = self._seal.keyring.verify(bundle.body, self._keys.cluster)
        if not _agree(header, bundle):
            raise InvalidJob(f"bundle {bundle.bundle} says one thing in its frame and another in its body")
        if not bundle.function:
            await self._check_task(bundle)
        if bundle.terms is not None and bundle.terms.flow is not None:
            check(bundle, bundle.terms.flow)
        if bundle.terms is not None and bundle.terms.after:
            await self._check_upstream(bundle, bundle.terms.after)
        return bundle.body, header, list(zip(header.indexes, payloads, strict=True))

    @staticmethod
    def _check_route(bundle: Enqueue) -> None:
        if not BUNDLE.match(bundle.bundle):
            raise InvalidJob(f"{bundle.bundle[:80]!r} is not a valid bundle id")
        if not is_name(bundle.queue):
            raise InvalidJob(f"{bundle.queue[:200]!r} is not a valid queue name: {NAME_RULE}")
        if not PRIORITY_MIN <= bundle.priority <= PRIORITY_MAX:
            raise InvalidJob(f"priority {bundle.priority} is not between {PRIORITY_MIN} and {PRIORITY_MAX}")
        if not 0 <= bundle.delay_s <= DELAY_S_MAX:
            raise InvalidJob(f"a delay of {bundle.delay_s} s is not between 0 and ten years")
        if len(bundle.key) > KEY_CHARS_MAX or not bundle.key.isprintable():
            raise InvalidJob(f"the key {bundle.key[:80]!r}: at most {KEY_CHARS_MAX} printable characters")
        if not is_task_name(bundle.task):
            raise InvalidJob(f"{bundle.task[:80]!r} is not a valid task name: module:name, at most {TASK_CHARS_MAX}")
        if bundle.function and not FUNCTION.match(bundle.function):
            raise InvalidJob(f"{bundle.function[:80]!r} is not the digest of a function")
        if bundle.terms is not None:
            _check_marks(bundle.terms)
        if bundle.terms is not None and bundle.terms.unique:
            if bundle.count != 1:
                raise InvalidJob(f"a unique key is that of one job, and bundle {bundle.bundle} holds {bundle.count}")
            if len(bundle.terms.unique) > KEY_CHARS_MAX or not bundle.terms.unique.isprintable():
                raise InvalidJob(
                    f"the unique key {bundle.terms.unique[:80]!r}: at most {KEY_CHARS_MAX} printable characters"
                )
        if bundle.python and not PYTHON.match(bundle.python):
            raise InvalidJob(f"{bundle.python[:80]!r} is not a version of Python")

    async def _check_upstream(self, bundle: Enqueue, upstream: tuple[Upstream, ...]) -> None:
        """What waits for jobs that nobody knows would wait for ever."""
        count = 0
        for one in upstream:
            if not BUNDLE.match(one.bundle) or "." in one.bundle or one.bundle == bundle.bundle:
                raise InvalidJob(f"{one.bundle!r} names no jobs that bundle {bundle.bundle} could wait for")
            jobs = int(one.jobs or "0", 16)
            if not jobs or jobs >> JOBS_PER_BUNDLE_MAX or int(one.wanted or "0", 16) & ~jobs:
                raise InvalidJob(f"which jobs of {one.bundle} bundle {bundle.bundle} waits for, cannot be read")
            count += jobs.bit_count()
        if count > UPSTREAM_MAX:
            raise InvalidJob(f"a job can wait for {UPSTREAM_MAX:,} others, not for {count:,}")
        missing = await unknown(self._ledger, self._keys, [one.bundle for one in upstream if not one.own])
        if missing is not None and await self._repeated(bundle) is None:
            first = indexes(int(next(one.jobs for one in upstream if one.bundle == missing), 16))[0]
            raise InvalidJob(
                f"job {job_id(missing, first)}, which this one is to wait for, is unknown in cluster "
                f"{self._keys.cluster!r}: it was enqueued elsewhere, or it ended long ago and nothing is kept of it"
            )

    async def _check_task(self, bundle: Enqueue) -> None:
        if await self._directory.task_mode(bundle.task) is None:
            raise UnknownTask(
                f"no node of cluster {self._keys.cluster!r} has ever registered the task {bundle.task[:200]!r}; "
                f"start one with `rota node --app {bundle.task.partition(':')[0][:100]}`"
            )

    async def _write(
        self, bundle: Enqueue, body: VerifiedBody, order: int, hold: Hold | None, over: Holder | None,
        tail: Condition | None = None, bound: moves.Bound | None = None,
    ) -> Write:
        token, due_ms = self._token(bundle, body, order), None
        if bundle.delay_s > 0:
            due_ms = due_by(token.at + int(bundle.delay_s * 1000), token.expires)
        if bundle.terms is not None and (bundle.terms.after or bundle.terms.flow is not None):
            token, due_ms = awaiting_of(token, bundle.terms, due_ms or 0), None
        elif due_ms is None:
            self._cache.put(bundle.bundle, body)
        receipts = self._receipts
        if bundle.terms is not None and bundle.terms.remember_s:
            receipts = self._uniques.receipts(bundle.terms.remember_s)
        lease = receipts.take() or await receipts.lease()
        write = moves.enqueue(
            self._keys, (self._member,), bundle.bundle, token, bundle.body, enqueue_digest(bundle.body).hex(), lease,
            due_ms=due_ms, tail=tail, hold=hold, bound=bound,
        )
        return write if over is None else await self._uniques.instead(over, write, bundle.bundle)

    def _token(self, bundle: Enqueue, body: VerifiedBody, order: int) -> Token:
        token = Token(
            bundle.task, bundle.queue, bundle.priority, order, bundle.count, bundle.mode,
            int(self._clock.wall() * 1000), python=bundle.python, function=bundle.function, key=bundle.key,
            signed=self._seal.keyring.mark(body[1].key_id), weight=self._weight(bundle),
        )
        return token if bundle.terms is None else with_terms(token, bundle.terms)

    def _weight(self, bundle: Enqueue) -> int:
        """As its task says; an enqueue may say something else."""
        task = self._directory.tasks.get(bundle.task) if not bundle.function else None
        return 1 if task is None else task.weight

    async def _answer(
        self, bundle: Enqueue, order: int, future: asyncio.Future[Verdict], body: VerifiedBody | None,
        tries: int = CONFLICTS_MAX,
    ) -> Receipt | EnqueueError:
        try:
            verdict = await asyncio.shield(future)      # who asked may cease to wait: what it began goes on
        except LeaseGone:
            self._receipts.drop()
            self._uniques.drop()
            return Overloaded("the store has just lost a lease; try again", 0.1)
        except LedgerError as error:
            return _refused(error)
        except EnqueueError as error:       # of another bundle of its section
            return await self._repeated(bundle) or error
        if verdict.applied:
            self.taken += bundle.count
            self._cache.note(bundle.bundle, verdict.revision, self._clock.monotonic())
            return Receipt(bundle.bundle, verdict.revision, order, bundle.level)
        if verdict.failed is not None and verdict.failed.key == self._member.key:
            return Overloaded("this node has just lost its membership; try another", 0.1)
        if bundle.terms is not None and bundle.terms.unique and body is not None:
            if (repeated := await self._repeated(bundle)) is not None:
                return repeated
            if tries:
                return await self._met_another(bundle, body, order, tries - 1)
            return Overloaded(f"others enqueue with the unique key {bundle.terms.unique} all the time; try again", 0.2)
        if bundle.terms is not None and (flow := bundle.terms.flow) is not None:
            return await self._repeated(bundle) or self._not_in_flow(flow, verdict)
        return await self._repeated(bundle) or Overloaded("this bundle's receipt is not readable now; try again", 0.5)

    def _not_in_flow(self, flow: FlowTerms, verdict: Verdict) -> EnqueueError:
        if verdict.failed is not None and verdict.failed.key == self._keys.flow(flow.id):
            return gone(flow.id)
        return InvalidJob(f"section {flow.section} of flow {flow.id} has taken too long to be stored: it never will be")

    async def _met_another(
        self, bundle: Enqueue, body: VerifiedBody, order: int, tries: int
    ) -> Receipt | EnqueueError:
        """The key that it wants for itself is another job's, or was a moment ago."""
        try:
            met = await self._uniques.met(bundle)
            if isinstance(met, Receipt | EnqueueError):
                return met
            future, order = await self._store(bundle, body, order, *met)
        except QueueFull as error:
            return error
        except LedgerError as error:
            return _refused(error)
        return await self._answer(bundle, order, future, body, tries)

    async def _repeated(self, bundle: Enqueue) -> Receipt | EnqueueError | None:
        """If there is a receipt, the same bundle was accepted before, or its id was given to something else."""
        page = await self._ledger.read(self._keys.receipt(bundle.bundle))
        record = page.records[0] if page.records else None
        if record is None:
            return None
        receipt = decode(ReceiptRecord, record.value)
        if receipt is None:         # it will not be read tomorrow either, so this is for certain
            return InvalidJob(
                f"bundle {bundle.bundle} may have been enqueued before: its receipt {shown(record.key)} cannot be read"
            )
        if receipt.digest != enqueue_digest(bundle.body).hex():
            refusal = InvalidJob(f"bundle {bundle.bundle} was enqueued before, with other contents")
            refusal.repeats = bundle.bundle
            return refusal
        return Receipt(bundle.bundle, record.create_revision, receipt.order)


def _check_marks(terms: Terms) -> None:
    for name, text in (("fair_key", terms.fair_key), ("rate_key", terms.rate_key)):
        if len(text) > KEY_CHARS_MAX or not text.isprintable():
            raise InvalidJob(f"{name} {text[:80]!r}: at most {KEY_CHARS_MAX} printable characters")
    for label in terms.requires:
        if not is_name(label):
            raise InvalidJob(f"{label[:80]!r} is not a valid label: {NAME_RULE}")


def _agree(header: Header, bundle: Enqueue) -> bool:
    """Whether a frame says what the body in it says."""
    said = (header.bundle, header.task, header.queue, header.mode, header.python, header.function, len(header.indexes))
    if said != (bundle.bundle, bundle.task, bundle.queue, bundle.mode, bundle.python, bundle.function, bundle.count):
        return False
    asked = (bundle.priority, bundle.key, bundle.delay_s)
    return header.v < 2 or (header.priority, header.key, header.delay_s) == asked


def _refused(error: LedgerError) -> EnqueueError:
    if isinstance(error, NoSpace):
        return Overloaded(
            "the store is full (etcd's NOSPACE alarm): free space or raise its quota; see docs/operations.md", 10.0
        )
    if isinstance(error, TransactionInvalid):
        return InvalidJob(f"the store refused the write: {error}")
    return Overloaded(f"the store does not answer: {error}", 0.5)
