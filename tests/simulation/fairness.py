"""Tenants take turns.

    W3  while tenants wait in one queue with jobs that any free slot could take, none of them is given `AHEAD_MAX` jobs
        more than another that has waited all the time; `LAG_S` after who waits has come, or a master has taken over,
        by when the master knows of all

Judged in the queue `FAIR`, in which all jobs are of one task: elsewhere a tenant may be ahead because the slots that
the other one's jobs need are taken. What was on a lost node goes apart, and is not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from rota.cluster.ledger.memory_store import Entry
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Claim, Token, decode

from .plans import CAPACITY, FAIR, FAIR_TASK, TASKS

LAG_S = 2.0
AHEAD_MAX = 3 * CAPACITY[TASKS[FAIR_TASK].mode]
"""A bundle of each, by start-time fair queueing, and one more that was on its way; each as large as a node at most."""


class Turns:
    """Judges one revision after the other."""

    def __init__(self, keys: Keys, say: Callable[[str, str], None]) -> None:
        self._keys = keys
        self._say = say
        self._waiting: dict[bytes, str] = {}            # token -> tenant
        self._since: dict[str, float] = {}              # since when a tenant has waited, without a break
        self._ahead: dict[str, Counter[str]] = {}       # of who waits: what others were given more
        self._term = 0
        self._term_since = 0.0

    def see(self, entry: Entry) -> None:
        for change in entry.changes:
            event = change.event
            if event.record.key.startswith(self._keys.claims) and change.previous is None and not event.deleted:
                claim = decode(Claim, event.record.value)
                if claim is not None and claim.queue == FAIR and claim.fence and not claim.orphanings:
                    self._given(claim, entry.at)
        for change in entry.changes:
            key = change.event.record.key
            if key.startswith(self._keys.queue_jobs(FAIR)):
                token = None if change.event.deleted else decode(Token, change.event.record.value)
                self._waiting.pop(key, None)
                if token is not None and not token.orphanings:
                    self._waiting[key] = token.fair
        there = set(self._waiting.values())
        self._since = {tenant: self._since.get(tenant, entry.at) for tenant in there}
        self._ahead = {tenant: ahead for tenant, ahead in self._ahead.items() if tenant in there}

    def _given(self, claim: Claim, at: float) -> None:
        if claim.fence != self._term:
            self._term, self._term_since = claim.fence, at
            self._ahead.clear()                         # it begins anew: who was ahead is not
        for tenant, since in self._since.items():
            if tenant == claim.fair or at < max(since, self._term_since) + LAG_S:
                continue
            ahead = self._ahead.setdefault(tenant, Counter())
            ahead[claim.fair] += claim.pending
            if ahead[claim.fair] > AHEAD_MAX:
                self._say("W3", f"{claim.fair or 'nobody'} was given {ahead[claim.fair]} jobs more than "
                                f"{tenant or 'nobody'}, who has waited for {at - since:.1f} s")
        own = self._ahead.get(claim.fair, Counter())
        for other in own:
            own[other] = max(0, own[other] - claim.pending)
