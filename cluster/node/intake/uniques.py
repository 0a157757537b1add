"""Enqueues that want a key for themselves: how it is held, and what is done where another job has it."""

from __future__ import annotations

from msgspec.structs import replace

from rota.client.errors import EnqueueError, JobExists
from rota.client.ids import job_id
from rota.client.model import NO_TERMS, Enqueue, Receipt, Terms

from ...context import IdentityContext
from ...ledger.buckets import Bucket
from ...ledger.commits import Write
from ...ledger.ledger import Condition
from ...state.discarding import Discards
from ...state.keys import whole
from ...state.records import Token
from ...state.uniques import Hold, Holder, look


class Uniques:
    """One identity's."""

    def __init__(self, context: IdentityContext) -> None:
        self._ledger = context.ledger
        self._keys = context.keys
        self._clock = context.clock
        self._buckets = context.buckets
        self._discards = Discards(context.ledger, context.keys, context.seal, context.buckets)

    def key(self, bundle: Enqueue) -> bytes:
        return self._keys.unique(bundle.task, _terms(bundle).unique)

    async def hold(self, bundle: Enqueue, at: Condition, orphan: Condition | None = None) -> Hold:
        """How it is to be held that was seen so."""
        terms = _terms(bundle)
        if terms.until != "time":
            return Hold(at, orphan=orphan)
        until_ms = int((self._clock.wall() + terms.unique_for_s) * 1000)
        return Hold(at, until_ms, await self._buckets.of(terms.unique_for_s).lease(), orphan)

    def receipts(self, remember_s: float) -> Bucket:
        return self._buckets.of(remember_s)

    def drop(self) -> None:
        """The store has lost a lease."""
        self._buckets.drop_all()

    async def met(self, bundle: Enqueue) -> tuple[Hold, Holder | None] | Receipt | EnqueueError:
        """Its key was not free: how to store it now (perhaps in the place of who has the key), or the answer."""
        terms = _terms(bundle)
        met = await look(self._ledger, self._keys, self.key(bundle), int(self._clock.wall() * 1000))
        if isinstance(met, Hold):
            return await self.hold(bundle, met.at, met.orphan), None
        if terms.on_conflict == "replace" and met.token is not None:
            return await self.hold(bundle, met.at), met
        there = job_id(met.bundle, 0)
        if terms.on_conflict == "raise":
            return JobExists(
                f"job {there} of task {bundle.task} has the unique key {terms.unique}: wait for it, cancel it, or "
                'enqueue with on_conflict="existing" for its handle', there,
            )
        assert isinstance(met.at.operand, int)
        return Receipt(whole(met.bundle), met.at.operand, 0, existing=True)

    async def instead(self, over: Holder, write: Write, bundle: str) -> Write:
        """Store it in the place of another, which has not begun."""
        assert over.record is not None and over.token is not None
        return await self._discards.replaced(over.record, over.token, write, job_id(bundle, 0))


def with_terms(token: Token, terms: Terms) -> Token:
    """What a token says of them. What is held for a time is not given back when the job ends."""
    unique = terms.unique if terms.until != "time" else ""
    expires = token.at + int(terms.expires_s * 1000) if terms.expires_s else 0
    return replace(
        token, unique=unique, until_begun=bool(unique) and terms.until == "begun", expires=expires,
        weight=terms.weight or token.weight, fair=terms.fair_key, rate_key=terms.rate_key, requires=terms.requires,
    )


def _terms(bundle: Enqueue) -> Terms:
    return bundle.terms or NO_TERMS
