"""What goes wrong in a run, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from .process import Process

if TYPE_CHECKING:
    from .world import World


class Nemesis:
    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.rng
        self.counts: dict[str, int] = {}

    async def run(self) -> None:
        """Do everything the plan says, in any order, at any time; return when all of it is over."""
        plan, clock = self.world.plan, self.world.clock
        deeds: list[Callable[[], Coroutine[Any, Any, None]]] = (
            [self.crash] * plan.crashes + [self.lose_machine] * plan.lost_machines + [self.cut] * plan.cuts
            + [self.outage] * plan.outages + [self.lose_lease] * plan.lost_leases + [self.compact] * plan.compactions
            + [self.drain] * plan.drains
        )
        times = sorted(self.rng.uniform(0.2, plan.trouble_s) for _ in deeds)
        self.rng.shuffle(deeds)
        end = clock.monotonic() + plan.trouble_s
        start = clock.monotonic()
        async with asyncio.TaskGroup() as group:
            for deed, at in zip(deeds, times, strict=True):
                await asyncio.sleep(max(0.0, start + at - clock.monotonic()))
                group.create_task(deed(), name="deed")
        await asyncio.sleep(max(0.0, end - clock.monotonic()))

    def _count(self, what: str, process: Process | None = None) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
        self.world.note(what if process is None else f"{what}: {process.node.node or process.name}")

    def _victim(self) -> Process | None:
        """Half of the time the master."""
        living = [process for process in self.world.processes if process.alive]
        if not living:
            return None
        masters = [process for process in living if process.node.is_master]
        return self.rng.choice(masters if masters and self.rng.random() < 0.5 else living)

    async def _replace(self) -> None:
        await asyncio.sleep(self.rng.uniform(0.2, 2.0))
        process = self.world.add_process()
        process.ledger.faults = self.world.faults

    async def kill(self, process: Process) -> None:
        """kill -9; the guard starts the node again."""
        if process.alive:
            self._count("killed", process)
            await process.die(guard=True)
            await self._replace()

    async def crash(self) -> None:
        if (process := self._victim()) is not None:
            await self.kill(process)

    async def lose_machine(self) -> None:
        if (process := self._victim()) is not None:
            self._count("machine lost", process)
            await process.die(guard=False)
            await self._replace()

    async def drain(self) -> None:
        if (process := self._victim()) is not None:
            self._count("SIGTERM", process)
            await process.leave()
            await self._replace()

    async def cut(self) -> None:
        """As a partition: nothing gets through, until it does again."""
        process = self._victim()
        if process is not None and not process.cut:
            seconds = self.rng.choice((0.5, 1.5, 2.2, 3.0, 5.0)) * self.rng.uniform(0.8, 1.2)
            if self.rng.random() < 0.4:
                await self._degrade(process)
            self._count("cut off", process)
            process.disconnect()
            await asyncio.sleep(seconds)
            process.reconnect()

    async def _degrade(self, process: Process) -> None:
        """A line that is about to break is slow, in both directions: what is answered was true long ago."""
        self._count("degraded", process)
        process.cut = True
        process.spell("cut")
        process.ledger.faults = msgspec.structs.replace(self.world.faults, slow=0.6, slow_s=(0.5, 1.5))
        await asyncio.sleep(self.rng.uniform(1.0, 3.0))
        process.ledger.faults = self.world.faults

    async def outage(self) -> None:
        """The store has no leader for a while. Leases do not run out meanwhile, and start again after it."""
        seconds = self.rng.choice((0.3, 1.5, 2.5, 4.0)) * self.rng.uniform(0.8, 1.2)
        self._count("store down")
        self.world.store.extend_leases(seconds + 1.0)
        silent = [process for process in self.world.processes if process.alive and not process.cut]
        for process in silent:
            process.disconnect()
        await asyncio.sleep(seconds)
        for process in silent:
            process.reconnect()

    async def lose_lease(self) -> None:
        """The store drops a lease early: it has broken its word, and executions may overlap until the node notices."""
        process = self._victim()
        if process is not None and process.node.node:
            self._count("lease lost early", process)
            self.world.betrayed.add(process.node.node)
            for lease in process.leases():
                process.ledger.lose_lease(lease)

    async def compact(self) -> None:
        self._count("compaction")
        self.world.store.compact(self.world.store.revision)
