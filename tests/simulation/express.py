"""The express lane: what an enqueue of level `durable` may bring along.

    X1  a bundle begins with its enqueue only where nothing stands before it: no settings of its queue, no job that
        waits there, no other claim of its node, no limit of its task, and a master that lends
    X2  a heavy job is not given to a node whose slots, less those that such a bundle has taken, are too few
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rota.client.model import Enqueue
from rota.cluster.ledger.memory_store import Entry
from rota.cluster.state.express import ExpressRecord, is_plain
from rota.cluster.state.keys import Keys, whole
from rota.cluster.state.records import Claim, Member, TaskRecord, claim_in, decode

from .history import Order
from .people import Client

if TYPE_CHECKING:
    from .world import World

LONE = "lone"
"""A queue of these only."""

HASTY = 16


class Hasty(Client):
    """Enqueues jobs one at a time, mostly where nothing else waits. There are two of it."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, rng=random.Random(f"{world.seed} hasty {number}"))

    @property
    def bundles(self) -> int:
        return HASTY

    def _order(self, bundle: str) -> Enqueue:
        rng = self.rng
        queue = rng.choice((LONE, LONE, LONE, "q2"))
        return self._bundle(bundle, rng.choice(("m:sync", "m:async")), queue, rng.choice((1, 1, 1, 2)))


class Ahead:
    """Judges one revision after the other, by what the store held before it."""

    def __init__(self, keys: Keys, orders: Mapping[str, Order], say: Callable[[str, str], None]) -> None:
        self._keys = keys
        self._orders = orders
        self._say = say
        self._held: dict[bytes, bytes] = {}         # what lies in the areas that count
        self._areas = (keys.jobs, keys.claims, keys.queues, keys.tasks, keys.nodes, keys.express)
        self.begun = 0

    def see(self, entry: Entry) -> None:
        receipts = {
            change.event.record.key[len(self._keys.receipts):].decode() for change in entry.changes
            if change.event.record.key.startswith(self._keys.receipts) and change.previous is None
        }
        claimed = [
            parsed for change in entry.changes if change.previous is None and not change.event.deleted
            and (parsed := self._keys.parse_claim(change.event.record.key)) is not None and parsed[1] in receipts
        ]
        for node, bundle in claimed:
            order = self._orders.get(bundle)
            if order is not None and order.level == "durable":
                self.begun += 1
                beside = sum(other == node for other, _ in claimed) > 1
                for what in self._before(node, order, beside=beside):
                    self._say("X1", f"bundle {bundle}, of {order.task}, began with its enqueue on {node}, and {what}")
        for change in entry.changes:
            record = change.event.record
            if record.key.startswith(self._areas):
                if change.event.deleted:
                    self._held.pop(record.key, None)
                else:
                    self._held[record.key] = record.value
                    if change.previous is None and record.key.startswith(self._keys.claims):
                        self._check_slots(record.key, claim_in(record.value))

    def _check_slots(self, key: bytes, claim: Claim | None) -> None:
        """X2. (What is of level `delayed` has been begun whatever else is there.)"""
        node = key[len(self._keys.claims):].decode().partition("/")[0]
        member = decode(Member, self._held.get(self._keys.node(node), b""))
        if claim is None or claim.weight == 1 or not claim.fence or member is None:
            return
        used = 0
        for other, value in self._held.items():
            if other.startswith(self._keys.claims_of(node)) and (held := claim_in(value)) is not None:
                order = self._orders.get(whole(other.rpartition(b"/")[2].decode()))
                if held.mode == claim.mode and (held.fence or (order is not None and order.level == "durable")):
                    used += held.pending * held.weight
        if used > member.capacity.get(claim.mode, 0):
            self._say("X2", f"{key.decode()} takes several slots, and {used} of {node} are taken")

    def _before(self, node: str, order: Order, *, beside: bool) -> list[str]:
        keys, found = self._keys, []
        if keys.queue(order.queue) in self._held:
            found.append(f"queue {order.queue} has settings")
        if any(key.startswith(keys.queue_jobs(order.queue)) for key in self._held):
            found.append(f"jobs wait in {order.queue}")
        if beside or any(key.startswith(keys.claims_of(node)) for key in self._held):
            found.append("that node has something else")
        task = decode(TaskRecord, self._held.get(keys.task(order.task), b""))
        if task is None or not is_plain(task) or order.delay_s:
            found.append("something else decides when it begins")
        word = decode(ExpressRecord, self._held.get(keys.express, b""))
        if word is None or not word.admits(order.queue):
            found.append("the master lends nothing")
        return found
