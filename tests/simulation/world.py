"""A whole cluster in one process, in virtual time: production nodes on the ledger in memory, scripted runners, clients,
and a nemesis. Everything is drawn from one seed, so a seed is a reproduction.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from rota.client.codec import UNSIGNED, Seal, encode_body
from rota.client.errors import EnqueueError, Overloaded, RotaError
from rota.client.ids import bundle_id, job_id, new_session
from rota.client.model import Enqueue, Header, Outcome, Receipt, TaskInfo
from rota.cluster.keys import Keys
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.ledger.memory_store import Entry, MemoryStore
from rota.cluster.node import Node, NodeSettings
from rota.cluster.runners import Work

from .faults import CALM, ROUGH, Faults, FaultyLedger
from .loop import VirtualClock, run_virtual
from .scripted import ScriptedRunners

CLUSTER = "sim"
TTL_S = 2
RETRY_WINDOW_S = 30.0
SETTLE_S_MAX = 240.0
"""Virtual seconds after the last fault within which every acknowledged job must have ended (L1)."""

TASKS = {
    "m:sync": TaskInfo("m:sync", "sync", max_attempts=3),
    "m:async": TaskInfo("m:async", "async", max_attempts=3),
}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run consists of."""

    nodes: int = 3
    clients: int = 2
    bundles: int = 12               # of each client
    trouble_s: float = 20.0         # how long things go wrong
    faults: Faults = ROUGH
    crashes: int = 2
    lost_machines: int = 1
    cuts: int = 3
    compactions: int = 2
    drains: int = 1


class Run(NamedTuple):
    """An execution of a job, as its runner saw it."""

    what: str           # "start", "end"
    at: float
    job: str
    node: str
    fence: int
    attempt: int


class History(msgspec.Struct):
    """What the checker reads."""

    journal: list[Entry]
    runs: list[Run]
    invoked: dict[str, set[str]]        # bundle -> its jobs
    acknowledged: set[str]              # bundles
    failed_enqueues: set[str]           # definitely refused
    notes: list[str]
    quiet_at: float                     # the last fault had healed
    ended_at: float

    def digest(self) -> str:
        """Equal for two runs of one seed."""
        trace = hashlib.blake2b(digest_size=16)
        for entry in self.journal:
            for change in entry.changes:
                record = change.event.record
                trace.update(b"%d %d %s %s\n" % (entry.revision, change.event.deleted, record.key, record.value))
        for run in self.runs:
            trace.update(repr(run).encode())
        return trace.hexdigest()


class Actor:
    """A node's process, its handle on the store, and its guard."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.rng = random.Random(world.rng.getrandbits(64))
        self.ledger = FaultyLedger(
            MemoryLedger(world.store, f"n{number}"), CALM, seed=self.rng.getrandbits(64),
            note=lambda text: world.note(f"n{number}: {text}"),
        )
        self.alive = True
        self.cut = False
        settings = NodeSettings(
            name=f"n{number}", python="3.11", version="0", lease_ttl_s=TTL_S, grace_s=3.0, receipt_ttl_s=120.0
        )
        self.node = Node(
            settings, self.ledger, world.keys, world.clock, self.rng, Seal(UNSIGNED, CLUSTER), self._runners
        )
        self.task = asyncio.get_running_loop().create_task(self.node.run(), name=f"actor-{number}")

    def _runners(self, node: Node) -> ScriptedRunners:
        self.runners = ScriptedRunners(
            dict(TASKS), {"sync": 2, "async": 4}, self.world.play, node.on_outcomes, self.world.clock.monotonic,
            self._record,
        )
        return self.runners

    def _record(self, what: str, work: Work, index: int) -> None:
        self.world.runs.append(Run(
            what, self.world.clock.monotonic(), job_id(work.bundle, index), self.node.node, work.fence, work.attempt
        ))

    def leases(self) -> list[int]:
        """What this process holds (member and master keys): what its guard would revoke."""
        keys = self.world.keys
        return sorted({
            record.lease for record in self.world.store.read(keys.nodes, keys.nodes + b"\xff", 0, 0, False, 0).records
            if record.lease and record.key[len(keys.nodes):].startswith(self.node.settings.name.encode() + b"-")
        })

    async def die(self, *, guard: bool) -> None:
        """kill -9: of the node's process (its guard reaps and revokes at once), or of the machine."""
        self.alive = False
        self.ledger.disconnect()
        self.runners.die()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        if guard:
            await asyncio.sleep(self.rng.uniform(0.01, 0.1))
            for lease in self.leases():
                self.world.store.end_lease(lease, "guard")

    async def leave(self) -> None:
        """SIGTERM."""
        self.alive = False
        self.node.drain()
        await asyncio.wait([self.task], timeout=30.0)


class World:
    """One run of one seed."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.rng = random.Random(seed)
        self.plan = plan
        self.clock = VirtualClock()
        self.store = MemoryStore(self.clock, journal=True)
        self.keys = Keys(CLUSTER)
        self.actors: list[Actor] = []
        self.runs: list[Run] = []
        self.invoked: dict[str, set[str]] = {}
        self.acknowledged: set[str] = set()
        self.refused: set[str] = set()
        self.notes: list[str] = []
        self.numbers = 0
        self._scripts: dict[tuple[str, int], tuple[float, Outcome]] = {}

    def note(self, text: str) -> None:
        self.notes.append(f"{self.clock.monotonic():9.3f} {text}")

    def play(self, work: Work, index: int) -> tuple[float, Outcome]:
        """How long a job takes and how it ends: drawn once per job and attempt, whoever runs it."""
        key = (job_id(work.bundle, index), work.attempt)
        script = self._scripts.get(key)
        if script is None:
            chance = random.Random(f"{key}{self.plan.nodes}")
            seconds = chance.choice((0.001, 0.01, 0.1, 0.5, 1.5)) * chance.uniform(0.5, 1.5)
            draw = chance.random()
            if draw < 0.08 and work.attempt < 3:
                outcome = Outcome(index, "retry", error="not yet", delay_s=chance.uniform(0.1, 3.0))
            elif draw < 0.12:
                outcome = Outcome(index, "failed", error="no")
            else:
                outcome = Outcome(index, "ok", b"r")
            script = self._scripts[key] = (seconds, outcome)
        return script

    def add_actor(self) -> Actor:
        actor = Actor(self, self.numbers)
        self.numbers += 1
        self.actors.append(actor)
        return actor

    # -- the run -----------------------------------------------------------------------------------------------------

    async def run(self) -> History:
        for _ in range(self.plan.nodes):
            self.add_actor()
        await self.until(lambda: all(actor.node.ready() is None for actor in self.actors), 30.0, "all have joined")
        for actor in self.actors:
            actor.ledger.faults = self.plan.faults
        clients = [
            asyncio.get_running_loop().create_task(self.client(), name=f"client-{number}")
            for number in range(self.plan.clients)
        ]
        await self.nemesis()
        for actor in self.actors:
            actor.ledger.faults = CALM
            actor.ledger.reconnect()
        quiet_at = self.clock.monotonic()
        self.note("all is quiet")
        await asyncio.gather(*clients)
        await self.until(self.empty, SETTLE_S_MAX, "every acknowledged job has ended")
        ended_at = self.clock.monotonic()
        await asyncio.sleep(6.0)        # late twins have their last chance
        await asyncio.gather(*(actor.leave() for actor in self.actors if actor.alive))
        assert self.store.journal is not None
        return History(
            self.store.journal, self.runs, self.invoked, self.acknowledged, self.refused, self.notes, quiet_at,
            ended_at,
        )

    async def until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        limit = self.clock.monotonic() + timeout_s
        while not condition():
            if self.clock.monotonic() > limit:
                raise Stuck(f"not within {timeout_s:g} s: {what}; {self.describe()}")
            await asyncio.sleep(0.05)

    def describe(self) -> str:
        keys = self.keys
        rows = []
        for prefix in (keys.jobs, keys.scheduled, keys.claims):
            found = self.store.read(prefix, prefix[:-1] + b"0", 0, 0, False, 0).records
            rows.append(f"{prefix.decode()}: {len(found)} {[record.key.decode() for record in found[:3]]}")
        members = self.store.read(keys.nodes, keys.nodes[:-1] + b"0", 0, 0, False, 0).records
        rows.append(f"members {[record.key.decode() for record in members]}")
        return "; ".join(rows)

    def empty(self) -> bool:
        keys = self.keys
        return not any(
            self.store.read(prefix, prefix[:-1] + b"0", 1, 0, True, 0).records
            for prefix in (keys.jobs, keys.scheduled, keys.claims)
        )

    async def nemesis(self) -> None:
        plan, rng = self.plan, self.rng
        deeds = (
            [self.crash] * plan.crashes + [self.lose_machine] * plan.lost_machines + [self.cut] * plan.cuts
            + [self.compact] * plan.compactions + [self.drain] * plan.drains
        )
        times = sorted(rng.uniform(0.2, plan.trouble_s) for _ in deeds)
        rng.shuffle(deeds)
        began = self.clock.monotonic()
        async with asyncio.TaskGroup() as group:
            for deed, at in zip(deeds, times, strict=True):
                await asyncio.sleep(max(0.0, began + at - self.clock.monotonic()))
                group.create_task(deed(), name=deed.__name__)
        await asyncio.sleep(max(0.0, began + plan.trouble_s - self.clock.monotonic()))

    def victim(self) -> Actor | None:
        """Half of the time the master."""
        living = [actor for actor in self.actors if actor.alive]
        if not living:
            return None
        masters = [actor for actor in living if actor.node.is_master]
        return self.rng.choice(masters if masters and self.rng.random() < 0.5 else living)

    async def replace(self) -> None:
        await asyncio.sleep(self.rng.uniform(0.2, 3.0))
        actor = self.add_actor()
        actor.ledger.faults = self.plan.faults

    async def crash(self) -> None:
        if (actor := self.victim()) is not None:
            self.note(f"kill -9 {actor.node.node}")
            await actor.die(guard=True)
            await self.replace()

    async def lose_machine(self) -> None:
        if (actor := self.victim()) is not None:
            self.note(f"machine lost {actor.node.node}")
            await actor.die(guard=False)
            await self.replace()

    async def cut(self) -> None:
        """As a partition, or as SIGSTOP: nothing gets through, until it does again."""
        if (actor := self.victim()) is not None and not actor.cut:
            seconds = self.rng.choice((0.5, 1.5, 3.0, 6.0)) * self.rng.uniform(0.7, 1.3)
            self.note(f"cut off for {seconds:.1f} s: {actor.node.node}")
            actor.cut = True
            actor.ledger.disconnect()
            await asyncio.sleep(seconds)
            actor.ledger.reconnect()
            actor.cut = False

    async def compact(self) -> None:
        self.note("compaction")
        self.store.compact(self.store.revision)

    async def drain(self) -> None:
        if (actor := self.victim()) is not None:
            self.note(f"SIGTERM {actor.node.node}")
            await actor.leave()
            await self.replace()

    # -- clients -----------------------------------------------------------------------------------------------------

    async def client(self) -> None:
        rng = random.Random(self.rng.getrandbits(64))
        session = new_session(lambda count: rng.randbytes(count))
        for counter in range(self.plan.bundles):
            await asyncio.sleep(rng.uniform(0.0, 2 * self.plan.trouble_s / self.plan.bundles))
            await self.enqueue(rng, bundle_id(session, counter))

    async def enqueue(self, rng: random.Random, bundle: str) -> None:
        """As a client does: the same bundle again, to any node, until the answer is definite or the window is over."""
        count = rng.choice((1, 1, 2, 7, 20))
        task = rng.choice(list(TASKS))
        header = Header(
            bundle, task, rng.choice(("q1", "q2")), TASKS[task].mode, list(range(count)), [1] * count, 0.0
        )
        order = Enqueue(
            bundle, task, header.queue, count, header.mode, encode_body(header, [b"x"] * count),
            priority=rng.choice((0, 0, 5)), delay_s=rng.choice((0.0, 0.0, 0.0, 1.0)),
        )
        self.invoked[bundle] = {job_id(bundle, index) for index in range(count)}
        give_up = self.clock.monotonic() + RETRY_WINDOW_S
        while self.clock.monotonic() < give_up:
            actor = rng.choice([actor for actor in self.actors if actor.alive] or self.actors)
            try:
                async with asyncio.timeout(rng.choice((0.2, 1.0, 5.0))):
                    (answer,) = await actor.node.enqueue([order], 0)
            except (TimeoutError, Overloaded, RotaError):
                await asyncio.sleep(rng.uniform(0.01, 0.3))
                continue
            if isinstance(answer, Receipt):
                self.acknowledged.add(bundle)
                return
            assert isinstance(answer, EnqueueError)
            if not isinstance(answer, Overloaded):
                self.refused.add(bundle)
                self.note(f"refused {bundle}: {answer}")
                return
            await asyncio.sleep(rng.uniform(0.01, 0.3))


class Stuck(Exception):
    """Something that had to happen did not."""


def simulate(seed: int, plan: Plan | None = None) -> History:
    """Run one seed to its end."""

    async def main() -> History:
        return await World(seed, plan or plan_of(seed)).run()

    return run_virtual(main())


def plan_of(seed: int) -> Plan:
    """What happens in a seed: some are calm, most are not."""
    rng = random.Random(seed * 7919 + 1)
    if seed % 10 == 0:
        return Plan(nodes=rng.choice((1, 3)), faults=CALM, crashes=0, lost_machines=0, cuts=0, compactions=0, drains=0)
    return Plan(
        nodes=rng.choice((3, 3, 4, 5)), clients=rng.choice((1, 2, 3)), faults=ROUGH if seed % 3 else CALM,
        crashes=rng.randrange(4), lost_machines=rng.randrange(2), cuts=rng.randrange(5),
        compactions=rng.randrange(3), drains=rng.randrange(2),
    )
