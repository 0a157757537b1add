"""A node's process as its machine sees it: it runs, is cut off, is killed, and has a guard that outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rota.client.model import Outcome, TaskInfo
from rota.client.wire.keyring import Keyring, Seal
from rota.cluster.context import NodeContext
from rota.cluster.events.hub import Events
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.node.node import Node
from rota.cluster.node.settings import NodeSettings
from rota.worker.channel.frames import Work

from .codes import Code
from .faults import FaultyLedger
from .history import Freeze
from .memories import Doing, Remembering
from .names import job_name
from .plans import CLUSTER, GOOD, GUARD_WAKES_S, POISON, SPARE, TTL_S
from .scripted import Run, ScriptedRunners

if TYPE_CHECKING:
    from .world import World

GRACE_S = 3.0


class Process:
    """A production node (`engine`; `node` is what its port would ask), its handle on the store, its runners and its
    guard."""

    def __init__(self, world: World, number: int, keyring: Keyring, code: Code) -> None:
        self.world = world
        self.keyring = keyring
        self.code = code
        self.name = f"n{number}"
        self.rng = random.Random(world.rng.getrandbits(64))
        self.ledger = FaultyLedger(
            MemoryLedger(world.store, self.name), GOOD, seed=self.rng.getrandbits(64),
            note=lambda text: world.note(text), watched=lambda txn, applied: world.nemesis.see(self, txn, applied),
        )
        self.alive = True
        self.cut = False
        self._troubles = 0
        self._began: dict[tuple[int, int], str] = {}    # (key of the work, index) -> under which identity
        settings = NodeSettings(
            name=self.name, python="3.11", version="0", lease_ttl_s=TTL_S, grace_s=GRACE_S, receipt_ttl_s=120.0
        )
        self.runners = ScriptedRunners(
            dict(code.tasks), dict(code.capacity), world.play, world.clock.monotonic, self._record,
            lambda: world.killings.append((world.clock.monotonic(), self.name)), SPARE,
            lambda work: world.broken.append(f"{self.name} was to run {work.task}, {work.mode}: not in its code"),
            lambda: world.clock.wall() * 1000,
            Remembering(self._remember, lambda: world.clock.wall() * 1000, naps=not world.plan.quiet),
        )
        context = NodeContext(
            ledger=self.ledger, keys=world.keys, clock=world.clock, rng=self.rng, seal=Seal(keyring, CLUSTER),
            events=Events(),
        )
        self.engine = Node(settings, context, self.runners)
        self.node = self.engine.service
        world.spell(self.name, "up")
        self.task = asyncio.get_running_loop().create_task(self.engine.run(), name=f"process-{self.name}")
        self.task.add_done_callback(self._ended)

    @property
    def is_master(self) -> bool:
        return self.engine.standing.is_master

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self.alive:
            why = "cancelled" if task.cancelled() else repr(task.exception())
            self.world.broken.append(f"the node of {self.name} ended by itself: {why}")

    def change_code(self, tasks: dict[str, TaskInfo]) -> None:
        """Its runners are started again, with the code as it lies there by now. (What they ran goes on.)"""
        self.code = self.code._replace(tasks=tasks)
        self.runners.tasks = dict(tasks)
        self.world.code_changes.append((self.world.clock.monotonic(), self.name))
        self.world.spell(self.name, "troubled" if self._troubles else "up")

    def _record(self, what: str, work: Work, index: int, outcome: Outcome | None, blamed: bool = False) -> None:
        job = job_name(work.bundle, index)
        if what == "start":
            self._began[work.key, index] = self.node.node
        node = self._began[work.key, index]     # when it is killed, that identity may have ended
        self.world.runs.append(Run(
            what, self.world.clock.monotonic(), job, node, work.fence, work.attempt,
            outcome.status if outcome is not None else "", outcome.delay_s if outcome is not None else 0.0,
            blamed, work.mode,
        ))
        if what == "start" and work.task == POISON and self.world.is_poison(job) and self.alive:
            self.world.note(f"{job} kills {self.node.node}")
            self.world.group.create_task(self.world.nemesis.kill(self), name="poison")

    def _remember(self, what: str, work: Work, index: int) -> None:
        self.world.doings.append(Doing(what, job_name(work.bundle, index), self.name, work.fence))

    # -- how it ends ---------------------------------------------------------------------------------------------------

    async def die(self, *, guard: bool) -> None:
        """kill -9: of the node's process, or of the machine with everything on it."""
        await self.stop()
        if guard:
            await self.reap()
            await self.revoke()
        else:
            self.runners.die()

    async def stop(self) -> None:
        """The node's process is no more. Its runners run on."""
        self.alive = False
        self.world.spell(self.name, "down")
        self.ledger.disconnect()
        self.runners.orphan()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def reap(self) -> None:
        """The guard kills the runners, and waits until they are dead."""
        await asyncio.sleep(self.rng.choice((0.005, 0.05, 0.4)) * self.rng.uniform(0.5, 1.5))
        self.runners.die()

    async def revoke(self) -> None:
        """The guard revokes the lease."""
        await asyncio.sleep(self.rng.uniform(0.01, 0.1))
        for lease in self.leases():
            self.world.store.end_lease(lease, "guard")

    def leases(self) -> list[int]:
        keys, mine = self.world.keys, f"{self.name}-".encode()
        records = self.world.store.read(keys.nodes, keys.nodes[:-1] + b"0", 0, 0, False, 0).records
        return sorted({
            record.lease for record in records if record.lease and record.key[len(keys.nodes):].startswith(mine)
        })

    async def leave(self) -> None:
        """SIGTERM."""
        self.alive = False
        self.world.spell(self.name, "leaving")
        self.engine.drain()
        await asyncio.wait([self.task], timeout=30.0)

    @contextlib.contextmanager
    def trouble(self) -> Iterator[None]:
        """What it does meanwhile is not held against it. Troubles overlap: it is well again after the last of them."""
        self._troubles += 1
        if self.alive:
            self.world.spell(self.name, "troubled")
        try:
            yield
        finally:
            self._troubles -= 1
            if self.alive and not self._troubles:
                self.world.spell(self.name, "up")

    # -- its connection ------------------------------------------------------------------------------------------------

    def disconnect(self) -> None:
        self.cut = True
        self.ledger.disconnect()

    def reconnect(self) -> None:
        if self.alive:
            self.cut = False
            self.ledger.reconnect()

    def freeze(self) -> None:
        """SIGSTOP to guard, node and runners. (The node's own code cannot stand still here: it is cut off.)"""
        self.world.frozen.append(Freeze(self.world.clock.monotonic(), self.name))
        self.disconnect()
        self.runners.freeze()

    def thaw(self) -> None:
        last = max(index for index, freeze in enumerate(self.world.frozen) if freeze.process == self.name)
        self.world.frozen[last] = self.world.frozen[last]._replace(until=self.world.clock.monotonic())
        self.runners.thaw(self.rng.uniform(0.0, GUARD_WAKES_S))
        self.reconnect()
