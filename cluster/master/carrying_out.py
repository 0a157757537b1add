"""Carrying out what the aggregator decides: each command becomes a write or a read, and it is told what came of it.

Every write is guarded by the term's fence, so a master that has been succeeded can decide what it likes.
"""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from rota.client.errors import LedgerError

from ..context import TermContext
from ..events.records import BundleExpired, TookOver
from ..ledger.buckets import Buckets
from ..ledger.commits import Verdict, Write, unmodified
from ..ledger.ledger import Put, Record
from ..state import moves
from ..state.discarding import Discards
from ..state.quarantine import SetAside, damage, left_at
from ..state.records import RateRecord, Token, decode, encode
from .dispatch.aggregator import Aggregator
from .dispatch.commands import Command, Expire, GiveClaim, LoadPage, Quarantine, Split, TakeOver
from .dispatch.lanes import Item
from .dispatch.rates import Reserve
from .duties.takeover import take_over
from .election.authority import Authority
from .reading import read_lane

RATE_KEPT_S = 10.0


class CarryingOut:
    """`tasks` run what takes more than a write; `wake` is set when there may be something to decide anew."""

    def __init__(
        self, context: TermContext, authority: Authority, aggregator: Aggregator, aside: SetAside,
        discards: Discards, buckets: Buckets, tasks: asyncio.TaskGroup, wake: asyncio.Event,
    ) -> None:
        assert isinstance(context.fence.operand, int)
        self._context = context
        self._authority = authority
        self._aggregator = aggregator
        self._aside = aside
        self._discards = discards
        self._buckets = buckets
        self._tasks = tasks
        self._wake = wake
        self._fence_revision = context.fence.operand

    def carry_out(self, command: Command) -> None:
        match command:
            case GiveClaim():
                self._give(command)
            case Split():
                self._tasks.create_task(self._split(command), name="master-split")
            case LoadPage():
                self._tasks.create_task(self._load(command), name="master-page")
            case TakeOver(node):
                self._tasks.create_task(self._take_over(node), name=f"takeover-{node}")
            case Expire(item):
                self._tasks.create_task(self._expire(item), name="master-expire")
            case Reserve():
                self._tasks.create_task(self._reserve(command), name="master-rate")
            case Quarantine(record):
                self._tasks.create_task(self._set_aside(record, None, "unreadable"), name="master-set-aside")

    def _give(self, command: GiveClaim) -> None:
        """Move the token under the node: refused if it has moved, if the node has changed, or if we are deposed."""
        item, node, aggregator = command.item, command.node, self._aggregator
        token = item.token if item.token.mode == command.held.mode else replace(item.token, mode=command.held.mode)
        keys, fence = self._context.keys, self._context.fence
        write = moves.claim(
            keys, (fence, unmodified(keys.node(node.name), node.mod_revision)),
            unmodified(item.key, item.mod_revision), item.bundle, token, node.name, fence=self._fence_revision,
            serial=command.serial,
        )

        def settled(future: asyncio.Future[Verdict]) -> None:
            verdict = self._verdict(future)
            if verdict is not None:
                aggregator.settle(
                    item, node, command.held, applied=verdict.applied, token_stale=self._is_about(verdict, item.key),
                    doubtful_at=verdict.revision if verdict.repeated else None, now=self._context.clock.monotonic(),
                    revision=self._instead(verdict, item.key), wall_ms=int(self._context.clock.wall() * 1000) + 1,
                )
                if not verdict.applied or command.held.rated:
                    self._wake.set()

        self._context.commits.submit(write).add_done_callback(settled)

    def _verdict(self, future: asyncio.Future[Verdict]) -> Verdict | None:
        """None where the term is over anyway, or the store refused for want of space (tried again by the next term)."""
        if future.cancelled():
            return None
        error = future.exception()
        if error is not None:
            if not isinstance(error, LedgerError):
                raise error
            self._authority.look_again(f"a claim could not be committed: {error}")
            return None
        verdict = future.result()
        if verdict.failed is not None and verdict.failed.key == self._context.fence.key:
            self._authority.depose()
            return None
        return verdict

    @staticmethod
    def _is_about(verdict: Verdict, key: bytes) -> bool:
        return verdict.failed is not None and verdict.failed.key == key

    def _instead(self, verdict: Verdict, key: bytes) -> int:
        """The revision of the token that lies where another was expected, or 0."""
        return verdict.found.mod_revision if self._is_about(verdict, key) and verdict.found is not None else 0

    async def _split(self, command: Split) -> None:
        item = command.item
        body = await self._context.ledger.read(self._context.keys.body(item.bundle))
        wrong = damage(item.bundle, item.token, body.records[0].value if body.records else b"")
        if wrong:
            await self._set_aside(Record(item.key, b"", 0, item.mod_revision, 0), item.token, wrong)
            self._aggregator.settle(item, None, applied=True, token_stale=True, doubtful_at=None, now=0.0)
            return
        write = moves.split(
            self._context.keys, self._context.seal, (self._context.fence,), unmodified(item.key, item.mod_revision),
            item.bundle, item.token, body.records[0], command.size,
        )
        future = self._context.commits.submit(write)
        await asyncio.wait([future])
        verdict = self._verdict(future)
        if verdict is not None:
            stale = not verdict.applied
            self._aggregator.settle(
                item, None, applied=verdict.applied, token_stale=stale, doubtful_at=None, now=0.0,
                revision=verdict.revision,
            )
            self._wake.set()

    async def _reserve(self, command: Reserve) -> None:
        """Write how far a rate may be used from here on. It is kept as long as it says something."""
        kept_s = max(0.0, command.until_ms / 1000 - self._context.clock.wall()) + RATE_KEPT_S
        lease = await self._buckets.of(kept_s).lease()
        future = self._context.commits.submit(Write(
            (self._context.fence, unmodified(command.key, command.mod_revision)),
            (Put(command.key, encode(RateRecord(command.until_ms)), lease),),
        ))
        await asyncio.wait([future])
        verdict = self._verdict(future)
        if verdict is not None:
            found = verdict.found.mod_revision if verdict.found is not None else 0
            revision = verdict.revision if verdict.applied else found
            self._aggregator.reserved(command, revision, applied=verdict.applied)
            self._wake.set()

    async def _expire(self, item: Item) -> None:
        """If it is still there, as it was."""
        token, record = item.token, Record(item.key, b"", 0, item.mod_revision, 0)
        write = await self._discards.expired((self._context.fence,), record, token)
        future = self._context.commits.submit(write)
        await asyncio.wait([future])
        verdict = self._verdict(future)
        if verdict is None:
            return
        self._aggregator.expired(item, self._instead(verdict, item.key))
        self._wake.set()
        if verdict.applied:
            self._context.events.emit(BundleExpired(item.bundle, token.task, token.queue, item.pending))

    async def _load(self, command: LoadPage) -> None:
        page = await read_lane(
            self._context.ledger, self._context.keys, command.queue, command.priority, limit=command.limit,
            after=command.after,
        )
        self._aggregator.picture.page(command.queue, command.priority, page.records, more=page.more)
        self._wake.set()

    async def _take_over(self, node: str) -> None:
        began = self._context.clock.monotonic()
        moved = await take_over(
            self._context, node, tasks=self._aggregator.picture.tasks, aside=self._aside
        )
        if moved is None:
            self._authority.depose()
        elif moved:
            self._context.events.emit(TookOver(node, moved, self._context.clock.monotonic() - began))

    async def _set_aside(self, record: Record, token: Token | None, reason: str) -> None:
        """If it is still there, as it was."""
        left: bytes | None = b""
        while left is not None:
            if token is None:
                write = await self._aside.unreadable((self._context.fence,), record)
            else:
                write = await self._aside.fail((self._context.fence,), record, token, reason)
            verdict = await self._context.commits.submit(write)
            left = left_at(write, record.key) if verdict.applied else None
            if left is not None:
                record = replace(record, value=left, mod_revision=verdict.revision)
                token = decode(Token, left) if token is not None else None
