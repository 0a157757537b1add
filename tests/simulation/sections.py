"""Flows: who stores them, and dies while he does, and the judge.

    F3  of a section of a flow nothing leaves `awaiting/` for a queue before the section is there; what is given up
        because its section never came, stays given up: the section never comes
    F4  a flow is over when all of its jobs have ended, and none of them is in the failed set; and it is over then
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from rota.client.calls.graphs import FlowPart, each, jobs_of, pack, unpack
from rota.client.errors import EnqueueError
from rota.client.ids import bundle_id
from rota.client.model import Enqueue, FlowPartKind, FlowTerms, OnUpstream, Receipt, Terms, Upstream
from rota.cluster.ledger.ledger import Delete, Txn
from rota.cluster.ledger.memory_store import Entry
from rota.cluster.node.service import Service
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Awaiting

from .history import Job, Order, Place, Step
from .names import job_name
from .people import Client
from .plans import QUEUES
from .trust import HAND

if TYPE_CHECKING:
    from .world import World

FLOWS = 5
"""That are stored in a run, or begun to be."""

DIES = 0.3
OVER_IN_S = 12.0


class Composers(Client):
    """Stores flows, in one transaction or in several; some die in between. `end`: the leases of theirs are over."""

    def __init__(self, world: World) -> None:
        super().__init__(world, rng=random.Random(f"{world.seed} composers"))
        self._whole: dict[str, list[Enqueue]] = {}

    async def run(self) -> None:
        counter = 0
        for _ in range(FLOWS):
            await asyncio.sleep(self.rng.uniform(0.0, 1.6 * self.world.plan.trouble_s / FLOWS))
            flow = bundle_id(self.session, counter)
            orders = self._orders(flow, counter + 1)
            counter += 1 + len(orders)
            await self._store(orders)

    def _orders(self, flow: str, counter: int) -> list[Enqueue]:
        rng, count = self.rng, self.rng.choice((2, 3, 4))
        whole = rng.random() < 0.3
        made: list[Enqueue] = []
        for number in range(count):
            order = self._bundle(
                bundle_id(self.session, counter + number), rng.choice(("m:sync", "m:async")), rng.choice(QUEUES),
                rng.choice((1, 1, 3)),
            )
            after = [
                Upstream(one.bundle, f"{(1 << one.count) - 1:x}", own=True)
                for one in rng.sample(made, min(len(made), rng.choice((0, 1, 2))))
            ]
            says: OnUpstream = rng.choice(("block", "cancel", "run"))
            last = number == count - 1
            part: FlowPartKind = "whole" if whole else "last" if last else "more" if number else "first"
            terms = FlowTerms(flow, flow, part)
            made.append(msgspec.structs.replace(order, terms=Terms(after=tuple(after), on_upstream=says, flow=terms)))
        parts = [
            FlowPart(one.bundle, one.task, one.queue, one.count, tuple(
                (before.bundle, before.jobs) for before in (one.terms or Terms()).after
            ), (one.terms or Terms()).on_upstream)
            for one in made
        ]
        assert made[-1].terms is not None and made[-1].terms.flow is not None
        flow_terms = msgspec.structs.replace(made[-1].terms.flow, name="flow", graph=pack(parts), jobs=len(parts))
        terms_of_last = msgspec.structs.replace(made[-1].terms, flow=flow_terms)
        made[-1] = msgspec.structs.replace(made[-1], terms=terms_of_last)
        return made

    async def _store(self, orders: list[Enqueue]) -> None:
        world, last = self.world, orders[-1]
        assert last.terms is not None and last.terms.flow is not None
        if last.terms.flow.part == "whole":
            self._whole[last.bundle] = orders
            for order in orders[:-1]:
                world.invoked[order.bundle] = {job_name(order.bundle, index) for index in range(order.count)}
                world.orders[order.bundle] = Order(
                    task=order.task, queue=order.queue, level=order.level, delay_s=order.delay_s, count=order.count
                )
            enqueue = asyncio.ensure_future(self._enqueue(last))
            await asyncio.sleep(0)
            for order in orders[:-1]:       # they are asked for as it is
                world.orders[order.bundle].asked = world.orders[last.bundle].asked
                world.orders[order.bundle].taken = world.orders[last.bundle].taken
            await enqueue
            if last.bundle in world.acknowledged:
                world.acknowledged.update((order.bundle, world.acknowledged[last.bundle]) for order in orders)
            return
        for order in orders:
            await self._enqueue(order)
            if order.bundle not in world.acknowledged or self.rng.random() < DIES / len(orders):
                return          # he is dead, or has been told that it is no good

    async def _request(self, node: Service, order: Enqueue) -> list[Receipt | EnqueueError]:
        orders = self._whole.get(order.bundle)
        if orders is None:
            return await super()._request(node, order)
        return (await node.enqueue(orders, self.seen))[-1:]

    def late(self) -> list[bytes]:
        """Leases that would end some time."""
        return [record.key for record in self.world.records(self.world.keys.flows_open)]

    def end_leases(self) -> None:
        for key in self.late():
            self.world.store.commit(Txn((), (Delete(key),)), HAND)

    async def end(self) -> None:
        """F4, when all is well again: every flow is over of which all jobs have ended, and none is in the failed
        set."""
        await self.world.until(lambda: not self._unended(), OVER_IN_S, "F4: a flow is over when its jobs have ended")

    def _unended(self) -> list[str]:
        world, keys = self.world, self.world.keys
        found: list[str] = []
        if world.plan.keys:
            return found        # what is signed with a key that the master lacks, waits for one that has it
        for record in world.records(keys.flows):
            flow = record.key[len(keys.flows):].decode()
            parts = [part for graph in world.records(keys.graphs_of(flow)) for part in unpack(graph.value) or []]
            if not any(
                world.records(keys.body(part.bundle), 1) or world.records(keys.failures_of(part.bundle), 1)
                for part in parts
            ):
                found.append(flow)
        return found


class SectionsSeen:
    """The judge's memory of flows."""

    def __init__(self, keys: Keys, say: Callable[[str, str], None]) -> None:
        self._keys = keys
        self._say = say
        self._there: set[str] = set()
        self._given_up: set[str] = set()
        self._jobs: dict[str, dict[str, int]] = {}
        self._in_failed: set[Job] = set()

    def see(self, entry: Entry, step: Step, ended: Mapping[Job, str]) -> None:
        """After the jobs that this revision ended are known."""
        self._in_failed |= step.failed.keys()
        self._in_failed -= step.unfailed
        for change in entry.changes:
            event, keys = change.event, self._keys
            key = event.record.key
            if event.deleted:
                continue
            if key.startswith(keys.graphs):
                flow = key[len(keys.graphs):].partition(b"/")[0].decode()
                self._jobs.setdefault(flow, {}).update(jobs_of(unpack(event.record.value) or []))
            elif key.startswith(keys.flows_ended):
                self._check_over(key[len(keys.flows_ended):].decode(), ended)

    def see_first(self, entry: Entry) -> None:
        """Before its moves are judged."""
        for change in entry.changes:
            key = change.event.record.key
            if key.startswith(self._keys.flow_sections) and not change.event.deleted:
                section = key.rpartition(b"/")[2].decode()
                if section in self._given_up:
                    self._say("F3", f"section {section} is there, and some of it was given up before")
                self._there.add(section)

    def check_leaves(self, name: str, place: Place) -> None:
        token = place.token
        if isinstance(token, Awaiting) and token.section and token.section not in self._there:
            self._say("F3", f"job {name} was let go before its section {token.section} was there")

    def is_given_up(self, place: Place) -> bool:
        """It is gone without an outcome: its section was not there, and is not to come."""
        token = place.token
        if not isinstance(token, Awaiting) or not token.section or token.section in self._there:
            return False
        self._given_up.add(token.section)
        return True

    def _check_over(self, flow: str, ended: Mapping[Job, str]) -> None:
        for job in each(self._jobs.get(flow, {})):
            if job not in ended:
                self._say("F4", f"flow {flow} is over, and job {job[0]}/{job[1]} is not")
            elif job in self._in_failed:
                self._say("F4", f"flow {flow} is over, and job {job[0]}/{job[1]} is in the failed set")
