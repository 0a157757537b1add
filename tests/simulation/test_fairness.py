"""A tenant with very many jobs, and others with few, while masters change: the law W3 holds, and is not idle."""

from __future__ import annotations

import asyncio

import msgspec

from rota.client.ids import bundle_id
from rota.client.model import Terms
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Claim, decode

from .fairness import LAG_S, Turns
from .loop import run_virtual
from .plans import CLUSTER, FAIR, FAIR_TASK, QUIET, TTL_S
from .process import Process
from .test_one_trouble import BUNDLE, order
from .world import World

MANY, FEW = 40, 6
JOBS = 4
"""Of a bundle of the tenant who has many."""
RUNS_S = 0.4


def run_tenants() -> tuple[list[str], World]:
    """Returns what the law finds, and the world."""
    async def enqueue(world: World, process: Process, number: int, tenant: str, count: int) -> None:
        bundle = bundle_id(BUNDLE.partition("-")[0], number)
        for index in range(count):
            world.script(f"{bundle}/{index}", RUNS_S)
        made = order("durable", FAIR_TASK, bundle=bundle, count=count, queue=FAIR)
        await process.node.enqueue([msgspec.structs.replace(made, terms=Terms(fair_key=tenant))], 0)

    async def main() -> World:
        world = World(1, QUIET)
        async with asyncio.TaskGroup() as world.group:
            world.prepare()
            processes = [world.add_process() for _ in range(3)]
            await world.until(world.all_are_ready, 10.0, "they join")
            for number in range(MANY):
                await enqueue(world, processes[0], number, "ann", JOBS)
            for number in range(MANY, MANY + FEW):
                await enqueue(world, processes[1], number, "bob", 1)
            await asyncio.sleep(1.0)
            (master,) = [process for process in processes if process.is_master]
            await master.die(guard=True)
            processes.remove(master)
            await world.until(world.is_empty, 60.0 + 4 * TTL_S, "all has ended")
            await asyncio.gather(*(process.leave() for process in processes))
        return world

    world = run_virtual(main())
    found: list[str] = []
    turns = Turns(Keys(CLUSTER), lambda rule, text: found.append(f"{rule}: {text}"))
    assert world.store.journal is not None
    for entry in world.store.journal:
        turns.see(entry)
    return found, world


def test_who_has_much_waiting_does_not_keep_others_from_their_turn() -> None:
    found, world = run_tenants()
    assert not found
    given = []
    for entry in world.store.journal or []:
        for change in entry.changes:
            if change.event.record.key.startswith(world.keys.claims) and change.previous is None:
                claim = decode(Claim, change.event.record.value)
                given += [(entry.at, claim.fair)] if claim is not None and claim.queue == FAIR else []
    assert given[-1][1] == "ann" and given[-1][0] - given[0][0] > 2 * LAG_S
