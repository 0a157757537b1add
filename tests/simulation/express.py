"""The express lane: what an enqueue of level `durable` may bring along.

    X1  a bundle begins with its enqueue only where nothing stands before it: no settings of its queue, no job that
        waits there, no limit of its task, and a master that lends
    X2  a queue in which a job waits has its flag, at every revision
    X3  when all is over no queue has its flag
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rota.client.model import Enqueue
from rota.cluster.ledger.ledger import Event
from rota.cluster.ledger.memory_store import Entry
from rota.cluster.state.express import ExpressRecord, is_plain
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import TaskRecord, decode, token_in

from .history import Order
from .people import Client
from .trust import HAND

if TYPE_CHECKING:
    from .world import World

LONE = "lone"
"""A queue of these only."""

HASTY = 16

FLAGS_S = 3.0
"""So long after everything a flag may be up."""


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
    """Judges one revision after the other: X1 by what the store held before it, X2 by what it holds then."""

    def __init__(self, keys: Keys, orders: Mapping[str, Order], say: Callable[[str, str], None]) -> None:
        self._keys = keys
        self._orders = orders
        self._say = say
        self._held: dict[bytes, bytes] = {}             # what lies in the areas that count
        self._waiting: dict[str, set[bytes]] = {}       # by queue
        self._areas = (keys.queues, keys.tasks, keys.express, keys.nonempty)
        self.begun = 0

    def see(self, entry: Entry) -> None:
        receipts = {
            change.event.record.key[len(self._keys.receipts):].decode() for change in entry.changes
            if change.event.record.key.startswith(self._keys.receipts) and change.previous is None
        }
        for change in entry.changes:
            parsed = self._keys.parse_claim(change.event.record.key)
            if parsed is None or parsed[1] not in receipts or change.previous is not None or change.event.deleted:
                continue
            node, bundle = parsed
            order = self._orders.get(bundle)
            if order is not None and order.level == "durable":
                self.begun += 1
                for what in self._before(order):
                    self._say("X1", f"bundle {bundle}, of {order.task}, began with its enqueue on {node}, and {what}")
        touched = {queue for change in entry.changes if (queue := self._take(change.event, entry.writer))}
        for queue in touched:
            if self._waiting.get(queue) and self._keys.flag(queue) not in self._held and entry.writer != HAND:
                self._say("X2", f"{min(self._waiting[queue])!r} waits, and its queue has no flag")

    def _take(self, event: Event, writer: str) -> str:
        """The queue that it concerns. (What somebody else puts there, or cannot be read, does not count.)"""
        key = event.record.key
        if key.startswith(self._areas):
            if event.deleted:
                self._held.pop(key, None)
            else:
                self._held[key] = event.record.value
            return self._keys.parse_flag(key) or "" if key.startswith(self._keys.nonempty) else ""
        place = self._keys.parse_job(key)
        if place is None:
            return ""
        keys = self._waiting.setdefault(place.queue, set())
        if event.deleted or writer in (HAND, "vandal") or token_in(place.queue, event.record.value) is None:
            keys.discard(key)
        else:
            keys.add(key)
        return place.queue

    def _before(self, order: Order) -> list[str]:
        keys, found = self._keys, []
        if keys.queue(order.queue) in self._held:
            found.append(f"queue {order.queue} has settings")
        if self._waiting.get(order.queue):
            found.append(f"jobs wait in {order.queue}")
        task = decode(TaskRecord, self._held.get(keys.task(order.task), b""))
        if task is None or not is_plain(task) or order.delay_s:
            found.append("something else decides when it begins")
        if decode(ExpressRecord, self._held.get(keys.express, b"")) is None:
            found.append("the master lends nothing")
        return found
