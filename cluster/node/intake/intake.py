"""Taking jobs in: an enqueue is acknowledged when body, token and receipt are committed, in one transaction.

Any node does this, without a master. The receipt answers a repeat of the same bundle after it was finished, split or
moved; the order is the newest store revision that this node or the client has seen.
"""

from __future__ import annotations

import asyncio
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
)
from rota.client.model import (
    Enqueue,
    FlowTerms,
    Mode,
    Receipt,
)
from rota.client.wire.codec import enqueue_digest

from ...context import IdentityContext
from ...ledger.buckets import Bucket
from ...ledger.commits import Verdict, Write, created, unmodified
from ...ledger.ledger import Condition
from ...state import moves
from ...state.directory import Directory
from ...state.keys import ORDER_DIGITS
from ...state.records import (
    Claim,
    QueueRecord,
    Token,
    awaiting_of,
    claim_of,
    due_by,
)
from ...state.uniques import Hold, Holder
from ..bodies.cache import BodyCache, VerifiedBody
from ..membership.own_record import OwnRecord
from .bounds import Bounds
from .checks import Checks
from .express import Express, Place
from .levels import Levels
from .repeats import Repeats
from .sections import Sections, gone
from .streams import Streams
from .tails import Tails
from .uniques import Uniques, with_terms

CONFLICTS_MAX = 20
"""How often one enqueue looks at who has its unique key, where that changes all the time."""

BACKLOG_MAX = 20_000
"""Enqueues waiting for the store in this node; beyond that it asks clients to come back."""

SEEN_MAX = 10 ** (ORDER_DIGITS - 1)
"""A revision that no store will ever reach: a client that says it has seen a later one does not tell the truth."""


class Intake:
    """One identity's enqueues."""

    def __init__(
        self, context: IdentityContext, directory: Directory, receipts: Bucket, cache: BodyCache, *,
        volatile: Callable[[Enqueue, VerifiedBody, EnqueueError | None], Receipt | EnqueueError],
        begin: Callable[[str, Claim, VerifiedBody, asyncio.Future[Verdict]], None],
        place: Place, record: OwnRecord, awaited: Callable[[str], bool] = lambda session: False,
    ) -> None:
        self._context = context
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
        self._uniques = Uniques(context)
        self._bounds = Bounds(context.ledger, context.keys, context.clock)
        self._tails = Tails(context.ledger, context.keys)
        self._repeats = Repeats(context.ledger, context.keys)
        self._checks = Checks(context, directory, self._repeats)
        self._levels = Levels(directory, record)
        self._streams = Streams(directory, context.clock, awaited)
        self.express = Express(context, directory, record, cache, receipts, place)
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
                body = await self._checks.check(bundle)
                settings = self._directory.queues.get(bundle.queue)
                refusal = self._levels.refusal(bundle, settings)
                mode = self._levels.own_mode(bundle) if bundle.level == "delayed" else None
                if bundle.level == "delayed" and mode is None and refusal is None:
                    bundle = bundles[number] = msgspec.structs.replace(bundle, level="durable")  # others will begin it
                if bundle.level == "none":
                    waiting.append(self._volatile(bundle, body, refusal or self._levels.not_here(bundle)))
                elif refusal is not None:
                    waiting.append(await self._repeats.of(bundle) or refusal)
                elif bundle.terms is not None and bundle.terms.flow is not None:
                    write = await self._write(bundle, body, order, None, None, None)
                    waiting.append((await sections.submit(write, bundle.terms.flow), order))
                elif mode is not None:
                    waiting.append((await self._start_now(bundle, body, order, mode), order))
                elif len(bundles) == 1 and (begun := await self.express.store(self._token, bundle, body, order)):
                    waiting.append((begun, order))
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
        future = self._commits.submit(await self._write(bundle, body, order, hold, over))
        self.express.note_waiting(bundle, future)
        return future, order

    async def _without_room(
        self, bundle: Enqueue, body: VerifiedBody, order: int, full: QueueFull
    ) -> tuple[asyncio.Future[Verdict], int] | Receipt | EnqueueError:
        """Its queue is full: but it may be stored already, and what takes the place of another job needs no room."""
        try:
            if (repeated := await self._repeats.of(bundle)) is not None:
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
            enqueue_digest(*body[:2]).hex(), lease,
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
        async with self._tails.turn(bundle.queue):
            while True:
                at: Condition | None = None
                bound = await self._bounds.room(bundle, settings) if over is None else None
                if settings.serial:
                    known = await self._tails.end_of(bundle.queue)
                    order, at = max(order, known[1] + 1), unmodified(tail, known[0])
                future = self._commits.submit(await self._write(bundle, body, order, hold, over, at, bound))
                try:
                    verdict = await future
                except LedgerError:
                    self._bounds.changed(bundle.queue)
                    raise
                if verdict.applied and settings.serial:
                    self._tails.stored(bundle.queue, verdict.revision, order)
                if verdict.applied and bound is not None:
                    self._bounds.took(bundle, verdict.revision)
                elif bound is not None:
                    self._bounds.changed(bundle.queue)
                if verdict.applied or verdict.failed is None or verdict.failed.key not in (tail, counter):
                    break
        return future, order

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
            self._keys, (self._member,), bundle.bundle, token, bundle.body, enqueue_digest(*body[:2]).hex(), lease,
            due_ms=due_ms, tail=tail, hold=hold, bound=bound,
        )
        return write if over is None else await self._uniques.instead(over, write, bundle.bundle)

    def _token(self, bundle: Enqueue, body: VerifiedBody, order: int) -> Token:
        token = Token(
            bundle.task, bundle.queue, bundle.priority, order, bundle.count, bundle.mode,
            int(self._clock.wall() * 1000), python=bundle.python, function=bundle.function, key=bundle.key,
            signed=self._seal.keyring.mark(body[1].key_id), weight=self._weight(bundle),
            calm=self._streams.is_calm(bundle),
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
            return await self._repeats.of(bundle) or error
        if verdict.applied:
            self.taken += bundle.count
            self._cache.note(bundle.bundle, verdict.revision, self._clock.monotonic())
            return Receipt(bundle.bundle, verdict.revision, order, bundle.level)
        if verdict.failed is not None and verdict.failed.key == self._member.key:
            return Overloaded("this node has just lost its membership; try another", 0.1)
        if body is not None and verdict.failed is not None and self.express.stopped(bundle, verdict.failed):
            return await self._after_all(bundle, body, order)
        if bundle.terms is not None and bundle.terms.unique and body is not None:
            if (repeated := await self._repeats.of(bundle)) is not None:
                return repeated
            if tries:
                return await self._met_another(bundle, body, order, tries - 1)
            return Overloaded(f"others enqueue with the unique key {bundle.terms.unique} all the time; try again", 0.2)
        if bundle.terms is not None and (flow := bundle.terms.flow) is not None:
            return await self._repeats.of(bundle) or self._not_in_flow(flow, verdict)
        return await self._repeats.of(bundle) or Overloaded("this bundle's receipt is not readable now; try again", 0.5)

    async def _after_all(self, bundle: Enqueue, body: VerifiedBody, order: int) -> Receipt | EnqueueError:
        """Something stood before what was to begin at once: it waits in its queue, like others."""
        try:
            future, order = await self._store(bundle, body, order)
        except EnqueueError as error:
            return error
        except LedgerError as error:
            return _refused(error)
        return await self._answer(bundle, order, future, body)

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

def _refused(error: LedgerError) -> EnqueueError:
    if isinstance(error, NoSpace):
        return Overloaded(
            "the store is full (etcd's NOSPACE alarm): free space or raise its quota; see docs/operations.md", 10.0
        )
    if isinstance(error, TransactionInvalid):
        return InvalidJob(f"the store refused the write: {error}")
    return Overloaded(f"the store does not answer: {error}", 0.5)
