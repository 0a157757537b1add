"""What goes wrong in a run, and when."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from rota.cluster.ledger.ledger import Txn

from .ambush import MOMENTS, Scout
from .codes import other_code
from .damage import damage
from .process import Process
from .trust import exchange_bodies

if TYPE_CHECKING:
    from .world import World


SLOW_S = (0.5, 1.5)
"""A request or an answer on a line that is about to break."""


class Nemesis:
    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.rng
        self.counts: dict[str, int] = {}
        self._scout = Scout(world.keys, world.orders)
        self._waiting: list[tuple[set[str], bool, float, asyncio.Future[tuple[Process, Txn, str]]]] = []
        self._end = 0.0

    async def run(self) -> None:
        """Do everything the plan says, in any order, at any time; return when all of it is over."""
        plan, clock = self.world.plan, self.world.clock
        deeds: list[Callable[[], Coroutine[Any, Any, None]]] = (
            [self.crash] * plan.crashes + [self.lose_machine] * plan.lost_machines + [self.cut] * plan.cuts
            + [self.outage] * plan.outages + [self.lose_lease] * plan.lost_leases + [self.compact] * plan.compactions
            + [self.drain] * plan.drains + [self.ambush] * plan.ambushes + [self.exchange] * plan.exchanges
            + [self.freeze] * plan.freezes + [self.change_code] * (2 * plan.codes)
            + [self.damage] * plan.damages
        )
        times = sorted(self.rng.uniform(0.2, plan.trouble_s) for _ in deeds)
        self.rng.shuffle(deeds)
        start = clock.monotonic()
        end = self._end = start + plan.trouble_s
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
        masters = [process for process in living if process.is_master]
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

    async def lose(self, process: Process) -> None:
        """The machine is gone, guard and all: its lease runs out."""
        if process.alive:
            self._count("machine lost", process)
            await process.die(guard=False)
            await self._replace()

    async def crash(self) -> None:
        if (process := self._victim()) is not None:
            await self.kill(process)

    async def lose_machine(self) -> None:
        if (process := self._victim()) is not None:
            await self.lose(process)

    async def drain(self) -> None:
        if (process := self._victim()) is not None:
            self._count("SIGTERM", process)
            await process.leave()
            await self._replace()

    async def change_code(self) -> None:
        """Of a node that is not the one which has all of it."""
        some = [process for process in self.world.processes if process.alive and not process.code.is_whole]
        if some:
            process = self.rng.choice(some)
            self._count("other code", process)
            process.change_code(other_code(self.rng))

    async def cut(self) -> None:
        """As a partition: nothing gets through, until it does again."""
        process = self._victim()
        if process is not None and not process.cut:
            if self.rng.random() < 0.4:
                await self._degrade(process)
            await self.cut_off(process)

    async def freeze(self) -> None:
        """A machine stands still, for longer than a lease more often than not, and goes on."""
        process = self._victim()
        seconds = self.rng.choice((1.0, 2.5, 5.0)) * self.rng.uniform(0.8, 1.2)
        if process is not None and not process.cut:
            self._count("frozen", process)
            with process.trouble():
                process.freeze()
                await asyncio.sleep(seconds)
                process.thaw()

    async def cut_off(self, process: Process) -> None:
        seconds = self.rng.choice((0.5, 1.5, 2.2, 3.0, 5.0)) * self.rng.uniform(0.8, 1.2)
        if process.alive:
            self._count("cut off", process)
            with process.trouble():
                process.disconnect()
                await asyncio.sleep(seconds)
                process.reconnect()

    async def cut_off_from_history(self, process: Process) -> None:
        """When it comes back its watches have been compacted away: it has to look afresh, with commits under way."""
        seconds = self.rng.uniform(0.3, 1.2)
        if process.alive:
            self._count("cut off", process)
            with process.trouble():
                process.disconnect()
                await asyncio.sleep(seconds)
                await self.compact()
                process.reconnect()

    # -- lying in wait -----------------------------------------------------------------------------------------------

    async def ambush(self) -> None:
        """Wait for a commit on which a feature depends, and strike in that moment: the master, its sender, or both. Or
        only hold the answer, so that the world has moved on when the sender hears of it."""
        moments, applied = set(self.rng.sample(MOMENTS, 3)), self.rng.random() < 0.5
        hold_s = self.rng.uniform(0.3, 3.0) if applied and self.rng.random() < 0.4 else 0.0
        future: asyncio.Future[tuple[Process, Txn, str]] = asyncio.get_running_loop().create_future()
        self._waiting.append((moments, applied, hold_s, future))
        try:
            async with asyncio.timeout(max(0.0, self._end - self.world.clock.monotonic())):
                sender, txn, moment = await future
        except TimeoutError:
            self._waiting = [entry for entry in self._waiting if entry[3] is not future]
            return
        if hold_s:
            self._count(f"held the answer: {moment}", sender)
            with sender.trouble():      # whatever touches the same keys waits for that answer
                await asyncio.sleep(hold_s)
            return
        self._count(f"struck while {moment}{'' if applied else ' (not yet applied)'}")
        masters = [process for process in self.world.processes if process.alive and process.is_master]
        whom = self.rng.choice((masters or [sender], masters or [sender], [sender], [sender, *masters]))
        deed = self.rng.choice((self.kill, self.lose, self.cut_off, self.cut_off_from_history))
        if not applied and sender in whom and deed in (self.kill, self.lose) and self.rng.random() < 0.5:
            sender.ledger.deliver_late(txn)
        await asyncio.gather(*(deed(process) for process in dict.fromkeys(whom)))

    def see(self, sender: Process, txn: Txn, applied: bool) -> None:
        """A commit has been sent, or has just been applied."""
        if self._waiting and sender.alive:
            seen = self._scout.moments(txn)
            for entry in list(self._waiting):
                moments, when, hold_s, future = entry
                moment = next((moment for moment in seen if moment in moments), None)
                if moment is not None and when is applied and not future.done():
                    self._waiting.remove(entry)
                    sender.ledger.hold_answer_s = hold_s
                    future.set_result((sender, txn, moment))

    # -- slower deaths -----------------------------------------------------------------------------------------------

    async def _degrade(self, process: Process) -> None:
        """A line that is about to break is slow, in both directions: what is answered was true long ago."""
        self._count("degraded", process)
        process.cut = True
        with process.trouble():
            process.ledger.faults = msgspec.structs.replace(self.world.faults, slow=0.6, slow_s=SLOW_S)
            await asyncio.sleep(self.rng.uniform(1.0, 3.0))
            process.ledger.faults = self.world.faults
            self.world.group.create_task(self._linger(process), name="linger")

    @staticmethod
    async def _linger(process: Process) -> None:
        """What is under way is slow still."""
        with process.trouble():
            await asyncio.sleep(SLOW_S[1])

    async def outage(self) -> None:
        """The store has no leader for a while. Leases do not run out meanwhile, and start again after it."""
        seconds = self.rng.choice((0.3, 1.5, 2.5, 4.0)) * self.rng.uniform(0.8, 1.2)
        self._count("store down")
        self.world.store.extend_leases(seconds + 1.0)
        silent = [process for process in self.world.processes if process.alive and not process.cut]
        with contextlib.ExitStack() as troubles:
            for process in silent:
                troubles.enter_context(process.trouble())
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

    async def exchange(self) -> None:
        """Somebody who can write to the store, and has no key."""
        if done := exchange_bodies(self.world, self.rng):
            self._count("bodies exchanged")
            self.world.note(f"the bodies of {done} have changed places")

    async def damage(self) -> None:
        """Somebody writes over what lies there."""
        if done := damage(self.world, self.rng):
            self._count("record damaged")
            self.world.note(done)

    async def compact(self) -> None:
        self._count("compaction")
        self.world.store.compact(self.world.store.revision)
