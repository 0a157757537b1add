"""Jobs that wait for jobs: who asks for them, and the judge.

    F1  a job that waits for others leaves only when all of them have ended, well if it says nothing else; once. (One
        that has begun, and waits until a time at the most: or when that is over)
    F2  none waits whose others have all ended as it wants them to
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Set
from typing import TYPE_CHECKING

import msgspec

from rota.client.errors import RotaError
from rota.client.ids import job_id
from rota.client.model import Enqueue, OnUpstream, Terms, Upstream
from rota.cluster.ledger.ledger import Record
from rota.cluster.state.records import Awaiting, decode
from rota.cluster.state.upstream import indexes

from .history import Job, Place
from .people import Client
from .plans import QUEUES

if TYPE_CHECKING:
    from .world import World

WAITERS = 12
"""Bundles that are enqueued in a run."""

RELEASED_IN_S = 12.0
"""F2, when all is well again: a master looks again at what it may have missed every ten seconds."""

ENDED_IN_S = 200.0
"""After this it is left to L1 to say what has not ended."""


class Waiters(Client):
    """Enqueues jobs that wait for some that were acknowledged before. `end`: those that wait in vain are cancelled."""

    def __init__(self, world: World) -> None:
        super().__init__(world, rng=random.Random(f"{world.seed} waiters"))

    @property
    def bundles(self) -> int:
        return WAITERS

    def _order(self, bundle: str) -> Enqueue:
        rng, world = self.rng, self.world
        known = sorted(name for name in world.acknowledged if name in world.orders)[-15:]
        after = []
        for name in sorted(rng.sample(known, min(len(known), rng.choice((0, 1, 1, 3))))):
            jobs = rng.randrange(1, 1 << world.orders[name].count)
            after.append(Upstream(name, f"{jobs:x}", f"{jobs:x}" if rng.random() < 0.3 else ""))
        says: OnUpstream = rng.choice(("block", "cancel", "run"))
        made = self._bundle(bundle, rng.choice(("m:sync", "m:async")), rng.choice(QUEUES), rng.choice((1, 1, 4)))
        return msgspec.structs.replace(made, terms=Terms(after=tuple(after), on_upstream=says))

    async def end(self) -> None:
        world = self.world
        limit = world.clock.monotonic() + ENDED_IN_S
        while world.clock.monotonic() < limit:
            records = [record for record in world.records(world.keys.awaiting) if not self._is_woken(record)]
            if not records:
                return
            await world.until(lambda: not list(self._late()), RELEASED_IN_S, "F2: what waits for nothing goes on")
            for record in records:
                await self._give_up(record)
            await asyncio.sleep(0.2)

    @staticmethod
    def _is_woken(record: Record) -> bool:
        """It waits for a time only, and that passes by itself."""
        token = decode(Awaiting, record.value)
        return token is not None and token.until > 0

    def _late(self) -> Iterator[str]:
        """What waits for bundles that have ended, and runs whatever has become of them. (What is signed with a key that
        the master lacks, waits for one that has it.)"""
        keys = self.world.keys
        if self.world.plan.keys:
            return
        for record in self.world.records(keys.awaiting):
            token = decode(Awaiting, record.value)
            if token is not None and token.on_upstream == "run" and not any(
                self._goes_on(one.bundle) for one in token.upstream
            ):
                yield record.key.decode()

    def _goes_on(self, bundle: str) -> bool:
        keys = self.world.keys
        return bool(self.world.records(keys.body(bundle), 1))

    async def _give_up(self, record: Record) -> None:
        """A person does not wait any longer, if what it waits for has ended."""
        token = decode(Awaiting, record.value)
        bundle = record.key.rpartition(b"/")[2].decode()
        if token is None or any(self._goes_on(one.bundle) for one in token.upstream):
            return
        try:
            async with asyncio.timeout(3.0):
                for index in range(token.count):
                    await self.world.any_node(self.rng).cancel(job_id(bundle, index))
        except (TimeoutError, RotaError):
            return


def check_release(
    ended: Mapping[Job, str], not_well: Set[Job], name: str, before: Place, say: Callable[[str, str], None],
    now_ms: float = 0.0,
) -> None:
    """F1: it leaves `awaiting/` for its queue. (What did not end well may have been revived since it was looked at.)"""
    token = before.token
    if not isinstance(token, Awaiting) or 0 < token.until <= now_ms:
        return
    for job in _upstream(token):
        how = ended.get(job)
        if token.on_upstream == "run" and (how is not None or job in not_well):
            continue
        if how not in ("ok", "unknown"):
            say("F1", f"job {name} was released, and {job[0]}/{job[1]}, which it waits for, is {how or 'not over'}")


def may_cancel(not_well: Set[Job], place: Place) -> bool:
    """Whether the master may cancel it by itself: it says so, and one that it waits for did not end well. (Or it is to
    be given a result that is not there any more: how long those are kept is not looked at here.)"""
    token = place.token
    if not isinstance(token, Awaiting) or token.on_upstream != "cancel":
        return False
    return not not_well.isdisjoint(_upstream(token)) or any(one.wanted for one in token.upstream)


def _upstream(token: Awaiting) -> list[Job]:
    return [(one.bundle, index) for one in token.upstream for index in indexes(int(one.jobs, 16))]
