"""Heavy jobs, tenants, and a queue that takes so many only.

    W1  of a node that the master has given a heavy job, the slots that are claimed never exceed those that it has
    W2  an enqueue to a queue that takes so many waiting jobs leaves no more than these there
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from rota.client.errors import QueueFull, RotaError
from rota.client.model import Enqueue, Receipt, Terms
from rota.cluster.ledger.memory_store import Entry
from rota.cluster.node.intake.bounds import COUNTED_S
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Claim, Member, Token, decode

from .people import Client
from .plans import BOUND, BOUNDED, FAIR, FAIR_TASK, HEAVY, QUEUES, WIDE

if TYPE_CHECKING:
    from .process import Process
    from .world import World

SHARERS = 10
TENANTS = ("ann", "bob", "")


class Sharers(Client):
    """Enqueues jobs that take several slots, jobs of tenants, and jobs to the queue that is soon full."""

    def __init__(self, world: World) -> None:
        super().__init__(world, rng=random.Random(f"{world.seed} sharers"))

    @property
    def bundles(self) -> int:
        return SHARERS

    def _order(self, bundle: str) -> Enqueue:
        rng = self.rng
        if rng.random() < 0.4:
            return self._bundle(bundle, rng.choice((HEAVY, WIDE)), rng.choice(QUEUES), rng.choice((1, 1, 2, 3)))
        queue = rng.choice((BOUNDED, BOUNDED, FAIR))
        task = rng.choice(("m:sync", "m:async")) if queue == BOUNDED else FAIR_TASK
        made = self._bundle(bundle, task, queue, rng.choice((1, 2, 5)))
        return msgspec.structs.replace(made, terms=Terms(fair_key=rng.choice(TENANTS)))

    async def _ask(self, process: Process, order: Enqueue) -> Receipt | RotaError | None:
        """Where the queue is full it asks again: what it asked before may be stored."""
        answer = await super()._ask(process, order)
        return None if isinstance(answer, QueueFull) else answer


class Shares:
    """Judges one revision after the other."""

    def __init__(self, keys: Keys, say: Callable[[str, str], None]) -> None:
        self._keys = keys
        self._say = say
        self._claims: dict[bytes, Claim] = {}
        self._waiting: dict[bytes, int] = {}
        self._back: dict[bytes, float] = {}         # when what is no enqueue came (back) to the bounded queue

    def see(self, entry: Entry, members: Mapping[str, Member]) -> None:
        given = set()
        enqueued = any(change.event.record.key == self._keys.bound(BOUNDED) for change in entry.changes)
        for change in entry.changes:
            key, value = change.event.record.key, change.event.record.value
            if key.startswith(self._keys.claims):
                claim = None if change.event.deleted else decode(Claim, value)
                if claim is None:
                    self._claims.pop(key, None)
                else:
                    self._claims[key] = claim
                    if change.previous is None and claim.fence:
                        given.add((key[len(self._keys.claims):].decode().partition("/")[0], claim.mode))
            elif key.startswith(self._keys.queue_jobs(BOUNDED)):
                token = None if change.event.deleted else decode(Token, value)
                self._waiting.pop(key, None)
                if token is not None:
                    self._waiting[key] = token.pending
                    if change.previous is None and not enqueued:
                        self._back[key] = entry.at
        for node, mode in sorted(given):
            self._check_slots(node, mode, members)
        counted = {
            key: jobs for key, jobs in self._waiting.items() if entry.at - self._back.get(key, -COUNTED_S) >= COUNTED_S
        }           # what a lost node had comes back, and a count may be so old
        if enqueued and sum(counted.values()) > BOUND and len(counted) > 1:
            self._say("W2", f"{sum(counted.values())} jobs wait in {BOUNDED} after an enqueue, {BOUND} may")

    def _check_slots(self, node: str, mode: str, members: Mapping[str, Member]) -> None:
        prefix = self._keys.claims_of(node)
        claims = [claim for key, claim in self._claims.items() if key.startswith(prefix) and claim.mode == mode]
        heavy = [claim for claim in claims if claim.weight > 1]
        used = sum(claim.pending * claim.weight for claim in claims if claim.fence)     # (not what it has begun itself)
        if heavy and node in members and used > members[node].capacity.get(mode, 0):
            self._say("W1", f"{used} slots of {node} are taken, and it has {members[node].capacity}")
