"""What lies under a node goes back to its queues, as if it had never been given: a bundle; or, when the runners are
dead, everything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from msgspec.structs import replace

from rota.worker.pool.interface import Runners

from ...context import IdentityContext
from ...events.sparse import Sparse
from ...ledger.commits import Verdict, Write, unmodified
from ...ledger.ledger import Record, prefix_end
from ...state import moves
from ...state.quarantine import SetAside
from ...state.records import claim_in
from ...state.words import Words
from ..claims.held import Held
from ..claims.table import Claims, must_not_repeat
from ..outcomes.reporter import AGAIN_S, Reporter

log = logging.getLogger(__name__)
trying = Sparse(log)

PAGE = 500


class HandBack:
    """One identity's."""

    def __init__(
        self, context: IdentityContext, claims: Claims, runners: Runners, reporter: Reporter, aside: SetAside
    ) -> None:
        self._context = context
        self._ledger = context.ledger
        self._commits = context.commits
        self._keys = context.keys
        self._member = context.member
        self._claims = claims
        self._runners = runners
        self._reporter = reporter
        self._aside = aside

    def one(self, held: Held) -> asyncio.Future[Verdict]:
        """A bundle that is settled. Nobody else will repeat it: while the store refuses it (it may be full), it is
        tried again."""
        member, at = self._reporter.conditions(held)
        write = moves.hand_back(self._keys, (member,), at, held.bundle, held.shown(held.done))
        future = self._commits.submit(write)

        def settled(done: asyncio.Future[Verdict]) -> None:
            if done.cancelled() or self._reporter.over:
                return
            if (error := done.exception()) is not None:
                trying.warn("not stored, to be tried again: %s", error)
                asyncio.get_running_loop().call_later(AGAIN_S, self.one, held)
            elif self._reporter.overwritten(held, done.result()):
                self.one(held)

        future.add_done_callback(settled)
        return future

    async def all(self, *, but_held: bool, ran: Mapping[str, int] | None = None, why: str = "") -> int:
        """Lists afresh until nothing is left to hand back, or the membership has ended; returns how many bundles.
        `but_held`: what the table of claims holds stays. `ran`: bundles of which jobs ran, and since when (ms); their
        history says `why` they were ended."""
        prefix = self._keys.claims_of(self._context.node)
        start, moved, again = prefix, 0, False
        while True:
            page = await self._ledger.read(start, prefix_end(prefix), limit=PAGE)
            made = [await self._write(record, but_held, ran or {}, why) for record in page.records]
            writes = [write for write in made if write is not None]
            verdicts = await asyncio.gather(*(self._commits.submit(write) for write in writes))
            if any(verdict.failed is not None and verdict.failed.key == self._member.key for verdict in verdicts):
                return moved
            moved += sum(verdict.applied for verdict in verdicts)
            again |= bool(verdicts)
            if page.more:
                start = page.records[-1].key + b"\0"
            elif again:
                start, again = prefix, False        # what has come, or changed, since it was read
            else:
                return moved

    async def _write(self, record: Record, but_held: bool, ran: Mapping[str, int], why: str) -> Write | None:
        """None for what stays: what is held, and a key that rota did not write."""
        claim, parsed = claim_in(record.value), self._keys.parse_claim(record.key)
        if parsed is None or (but_held and self._claims.is_held(parsed[1], record.create_revision)):
            return None
        if claim is None:
            return await self._aside.unreadable((self._member,), record)
        bundle = parsed[1]
        self._claims.note_ended(bundle, record.create_revision)
        if claim.started and must_not_repeat(self._runners.tasks, claim):
            return await self._aside.fail((self._member,), record, claim, "lost", node=self._context.node)
        at, past = unmodified(record.key, record.mod_revision), None
        if bundle in ran:
            now_ms = int(self._context.clock.wall() * 1000)
            words = Words(self._context.seal)
            verified = words.heard_token(bundle, claim)
            past = verified.and_past(self._context.node, ran[bundle], now_ms, why)
            claim = words.token(bundle, replace(verified, past=past))
        body = await self._aside.to_part(bundle, claim)
        return moves.hand_back(self._keys, (self._member,), at, bundle, claim, past, body, self._context.seal)
