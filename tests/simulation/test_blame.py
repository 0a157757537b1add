"""A job that kills its node, among innocent ones that take long: with production nodes, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from rota.client.ids import bundle_id
from rota.client.wire.keyring import UNSIGNED
from rota.cluster.state.records import FailedRecord, decode

from . import world as worlds
from .loop import run_virtual
from .plans import CAPACITY, POISON, QUIET
from .test_trust import SESSION, order, take
from .world import World

KILLER, INNOCENT = bundle_id(SESSION, 99), [bundle_id(SESSION, number) for number in range(20)]


def play(nodes: int, slots: int, monkeypatch: pytest.MonkeyPatch) -> tuple[World, float]:
    """Until all has ended; returns when the killer was condemned."""
    monkeypatch.setattr(worlds, "POISONINGS_MAX", 99)
    for mode in ("sync", "async"):
        monkeypatch.setitem(CAPACITY, mode, slots)

    async def main() -> tuple[World, float]:
        world = World(1, QUIET)
        async with asyncio.TaskGroup() as world.group:
            world.prepare()
            processes = [world.add_process() for _ in range(nodes)]
            await world.until(world.all_are_ready, 10.0, "they join")
            for name in INNOCENT:
                world.script(f"{name}/0", 6.0)
            world.script(f"{KILLER}/1", 10.0)       # it does not live to see its end
            began = world.clock.monotonic()
            innocent = [order(UNSIGNED, name, 1) for name in INNOCENT]
            await take(processes[0], *innocent, order(UNSIGNED, KILLER, task=POISON))
            await world.until(lambda: bool(world.records(world.keys.failed)), 60.0, "it is condemned")
            seconds = world.clock.monotonic() - began
            await world.until(world.is_empty, 200.0, "all has ended")
            await asyncio.gather(*(process.leave() for process in world.processes if process.alive))
        return world, seconds

    return run_virtual(main())


@pytest.mark.parametrize(("nodes", "slots", "soon_s"), [(1, 50, 15.0), (2, 4, 10.0), (2, 50, 15.0), (3, 50, 15.0)])
def test_it_is_found_in_three_losses_and_the_innocent_are_done(
    nodes: int, slots: int, soon_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, seconds = play(nodes, slots, monkeypatch)
    (failed,) = [decode(FailedRecord, record.value) for record in world.records(world.keys.failed)]
    assert failed is not None and (failed.id, failed.reason) == (f"{KILLER}/1", "orphaned")
    assert world.nemesis.counts["killed"] == 3 and seconds < soon_s
    done = {run.job for run in world.runs if run.outcome == "ok"}
    assert done == {f"{name}/0" for name in INNOCENT} | {f"{KILLER}/0"}
