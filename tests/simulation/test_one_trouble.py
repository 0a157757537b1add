"""One trouble at a time: what seeds have found, played again by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from rota.client.errors import LedgerUnavailable, Overloaded
from rota.client.ids import bundle_id, new_session
from rota.client.model import Enqueue, Header, Level, Receipt
from rota.client.wire.codec import encode_body
from rota.cluster.ledger.ledger import Page
from rota.cluster.node.membership.reach import PATIENCE_S

from .checker import Checker
from .conduct import STARVED_S_MAX, UNSERVED_S_MAX
from .faults import Fate
from .loop import run_virtual
from .plans import CAPACITY, CLUSTER, QUIET, TASKS, TTL_S
from .process import Process
from .scripted import Run
from .world import World

BUNDLE = bundle_id(new_session(lambda count: bytes(range(count))), 0)


def order(
    level: Level, task: str = "m:async", *, bundle: str = BUNDLE, count: int = 2, queue: str = "q2"
) -> Enqueue:
    header = Header(bundle, task, queue, TASKS[task].mode, list(range(count)), [1] * count, 0.0)
    return Enqueue(bundle, task, queue, count, header.mode, encode_body(header, [b"x"] * count), level=level)


def play(nodes: int, deed: Callable[..., Awaitable[None]], seed: int = 1) -> list[str]:
    """Do something to a cluster; returns which jobs were started, once everything has ended."""
    async def main() -> list[str]:
        world = World(seed, QUIET)
        async with asyncio.TaskGroup() as world.group:
            world.prepare()
            processes = [world.add_process() for _ in range(nodes)]
            await world.until(world.all_are_ready, 10.0, "they join")
            await deed(world, *processes)
            await world.until(world.is_empty, 30.0, "all has ended")
            assert not world.store.read(world.keys.failed, world.keys.failed[:-1] + b"0", 0, 0, True, 0).records
            await asyncio.gather(*(process.leave() for process in processes))
        return sorted(run.job for run in world.runs if run.what == "start")

    return run_virtual(main())


LIMIT = TASKS["m:limited"].max_concurrency or 0
ONCE_EACH = [f"{BUNDLE}/0", f"{BUNDLE}/1"]


def test_a_claim_whose_write_had_to_be_repeated_is_ours() -> None:
    async def deed(world: World, process: Process) -> None:
        process.ledger.next_fates.append(Fate.ANSWER_LOST)
        (answer,) = await process.node.enqueue([order("delayed")], 0)
        assert isinstance(answer, Receipt)

    assert play(1, deed) == ONCE_EACH


@pytest.mark.parametrize("level", ["delayed", "none"])
def test_a_node_that_is_asked_again_begins_nothing(level: Level) -> None:
    async def deed(world: World, process: Process) -> None:
        first = asyncio.ensure_future(process.node.enqueue([order(level)], 0))
        while not world.runs:       # noqa: ASYNC110 - in virtual time
            await asyncio.sleep(0.0001)
        first.cancel()
        (answer,) = await process.node.enqueue([order(level)], 0)
        assert isinstance(answer, Receipt)

    assert play(1, deed) == ONCE_EACH


def test_what_must_not_run_twice_begins_nowhere_but_where_it_is_stored() -> None:
    async def deed(world: World, first: Process, second: Process) -> None:
        await asyncio.gather(*[process.node.enqueue([order("delayed", "m:once")], 0) for process in (first, second)])

    assert play(2, deed) == ONCE_EACH


def test_a_repeat_is_not_refused_because_its_queue_was_paused_since() -> None:
    async def deed(world: World, process: Process) -> None:
        await process.node.enqueue([order("delayed")], 0)
        await process.node.set_queue("q2", {"paused": True})
        await asyncio.sleep(0.5)
        (answer,) = await process.node.enqueue([order("delayed")], 0)
        assert isinstance(answer, Receipt)

    assert play(1, deed) == ONCE_EACH


def test_a_node_that_leaves_hands_back_only_what_is_stored() -> None:
    async def deed(world: World, first: Process, second: Process) -> None:
        await first.node.enqueue([order("delayed")], 0)
        life = second.engine.identities.life
        assert life is not None
        life.executor.drain()
        (answer,) = await second.node.enqueue([order("delayed")], 0)
        assert isinstance(answer, Receipt)

    assert play(2, deed) == ONCE_EACH


@pytest.mark.parametrize("ended", [0, 1, 2])
def test_what_has_ended_waits_for_its_claim_through_an_outage(ended: int) -> None:
    """The store is away past the lease's deadline, and the lease survives: only what was killed runs again."""
    async def deed(world: World, process: Process) -> None:
        for index, name in enumerate(ONCE_EACH):
            world.script(name, 0.1 if index < ended else 10.0)
        process.ledger.next_fates.extend([Fate.REQUEST_LOST] * 3)       # two of the claim, one of a job's progress
        enqueue = asyncio.ensure_future(process.node.enqueue([order("delayed")], 0))
        while not world.runs:       # noqa: ASYNC110 - in virtual time
            await asyncio.sleep(0.0001)
        world.store.extend_leases(30.0)
        process.disconnect()
        await world.until(lambda: process.engine.standing.membership.suspended, 20.0, "the node notices")
        process.reconnect()
        (answer,) = await enqueue
        assert isinstance(answer, Receipt)

    assert play(1, deed) == sorted(ONCE_EACH + ONCE_EACH[ended:])


def test_a_bundle_that_comes_again_before_its_end_is_known() -> None:
    """The answer to the write that puts a retry off is late: the node has the bundle again, under another claim."""
    async def deed(world: World, process: Process) -> None:
        for name, seconds in zip(ONCE_EACH, (0.1, 4.0), strict=True):
            world.script(name, 0.1, retry_s=0.01)
            world.script(name, seconds, 2)
        await process.node.enqueue([order("durable")], 0)
        while sum(run.what == "end" for run in world.runs) < 2:     # noqa: ASYNC110 - in virtual time
            await asyncio.sleep(0.0001)
        process.ledger.hold_answer_s = 2.0

    assert play(1, deed) == sorted(ONCE_EACH * 2)


def test_claims_under_way_count_for_a_master_that_has_to_look_afresh() -> None:
    """Its claims are sent again and again, and meanwhile its watch is overtaken by a compaction. (What comes first, the
    claims or the look, hangs on the seed: half of them are of use.)"""
    for seed in range(1, 9):
        look_afresh(seed)


def look_afresh(seed: int) -> None:
    names = [bundle_id(BUNDLE.partition("-")[0], number) for number in range(3)]
    runs: list[Run] = []

    async def deed(world: World, *processes: Process) -> None:
        world.runs = runs
        await world.until(lambda: any(process.is_master for process in processes), 10.0, "there is a master")
        other, master = sorted(processes, key=lambda process: process.is_master)
        for name in names:
            world.script(f"{name}/0", 3.0)
        orders = [order("durable", "m:limited", bundle=name, count=1) for name in names]
        await other.node.enqueue(orders, 0)
        master.ledger.next_fates.extend([Fate.REQUEST_LOST] * 2)
        master.ledger.faults = msgspec.structs.replace(master.ledger.faults, watch_latency_s=(0.5, 0.5))
        await world.until(lambda: len(master.ledger.next_fates) < 2, 5.0, "the first claims are sent")
        master.disconnect()
        for number in (3, 4):
            await other.node.enqueue([order("durable", bundle=bundle_id(BUNDLE.partition("-")[0], number))], 0)
        await world.nemesis.compact()
        master.reconnect()

    play(2, deed, seed)
    begun = ended = 0
    for run in runs:
        if run.job.partition("/")[0] in names:
            begun, ended = begun + (run.what == "start"), ended + (run.what == "end")
            assert begun - ended <= LIMIT
    assert begun == ended == len(names)


def test_an_own_claim_is_newer_than_a_look_that_was_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compaction has overtaken the watch over claims; while the answer to the look comes, a claim is stored."""
    async def deed(world: World, process: Process, other: Process) -> None:
        looked, enqueued = asyncio.Event(), asyncio.Event()
        claims, read = world.keys.claims_of(process.node.node), process.ledger.inner.read

        async def slow_read(key: bytes, *bounds: bytes, **options: Any) -> Page:
            page = await read(key, *bounds, **options)
            if key == claims:
                looked.set()
                await enqueued.wait()
            return page

        for name in ONCE_EACH:
            world.script(name, 1.0)
        monkeypatch.setattr(process.ledger.inner, "read", slow_read)
        process.disconnect()
        for number in (3, 4):
            await other.node.enqueue([order("durable", bundle=bundle_id(BUNDLE.partition("-")[0], number))], 0)
        await world.nemesis.compact()
        process.reconnect()
        await looked.wait()
        await process.node.enqueue([order("delayed")], 0)
        enqueued.set()

    assert [job for job in play(2, deed) if job in ONCE_EACH] == ONCE_EACH


def test_a_node_past_its_deadline_takes_nothing_into_memory() -> None:
    """While it waits for the answer to its keep-alive, the guard has killed its runners."""
    async def deed(world: World, process: Process) -> None:
        world.store.extend_leases(30.0)
        process.disconnect()
        membership = process.engine.standing.membership
        await world.until(lambda: world.clock.monotonic() > membership.deadline, 20.0, "the deadline")
        (answer,) = await process.node.enqueue([order("none")], 0)
        assert isinstance(answer, Overloaded)
        process.reconnect()
        await world.until(lambda: process.engine.standing.membership.is_sure, 20.0, "the lease is renewed")

    assert not play(1, deed)


def test_what_was_in_memory_is_lost_with_its_runners() -> None:
    async def deed(world: World, process: Process) -> None:
        await process.node.enqueue([order("none")], 0)
        for lease in process.leases():
            process.ledger.lose_lease(lease)

    assert set(play(1, deed)) <= set(ONCE_EACH)


def test_a_node_that_the_store_shuts_out_leaves_its_work_to_others() -> None:
    """Only keepalives are answered: it is not ready, nor master, nor a member for long, and comes back."""
    seen: list[bool] = []

    async def deed(world: World, *processes: Process) -> None:
        await world.until(lambda: any(process.is_master for process in processes), 10.0, "there is a master")
        other, master = sorted(processes, key=lambda process: process.is_master)
        lost = master.node.node
        master.ledger.shut_out = True
        await other.node.enqueue([order("durable")], 0)
        await asyncio.sleep(PATIENCE_S + 2 * TTL_S + 2.0)
        seen.extend([other.is_master, bool(master.node.why_not_ready()), other.node.why_not_ready() is None])
        master.ledger.shut_out = False
        await world.until(world.all_are_ready, 5.0, "it is let in again")
        seen.append(master.node.node != lost)

    play(2, deed)
    assert seen == [True] * 4


def test_a_side_task_that_fails_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As compaction does while two of three members of etcd stand still, and whatever comes from a bug."""
    seen: list[int] = []
    failed: list[int] = []

    async def deed(world: World, process: Process) -> None:
        life = process.engine.identities.life
        assert life is not None
        life._pressure._compacts = True
        monkeypatch.setattr(process.ledger.inner, "compact", fail)
        monkeypatch.setattr(process.engine._parts.status, "run", fail)
        await process.node.enqueue([order("durable")], 0)
        await asyncio.sleep(100.0)
        seen.append(process.engine.identities.count)

    async def fail(*_: Any) -> None:
        failed.append(1)
        raise LedgerUnavailable("no endpoint answered in time")

    assert play(1, deed) == ONCE_EACH
    assert seen == [1]
    assert failed


def test_a_machine_that_stood_still_begins_nothing_when_it_goes_on() -> None:
    """Its runners are the first to go on: what they run goes on with them, what was sent ahead has ended elsewhere."""
    late: list[Run] = []

    judges: list[Checker] = []

    async def deed(world: World, *processes: Process) -> None:
        jobs = [f"{BUNDLE}/{index}" for index in range(12)]
        for job in jobs:
            world.script(job, 0.5)
        await processes[0].node.enqueue([order("durable", "m:sync", count=len(jobs))], 0)
        await world.until(lambda: bool(world.runs), 5.0, "something runs")
        frozen = next(process for process in processes if world.runs[0].node.startswith(process.name))
        frozen.freeze()
        since = world.clock.monotonic()
        await asyncio.sleep(5 * TTL_S)
        assert world.is_empty()
        frozen.thaw()
        await asyncio.sleep(2 * TTL_S)
        late.extend(
            run for run in world.runs
            if run.what == "start" and run.at > since and run.node.startswith(frozen.name)
        )
        judges.append(Checker(CLUSTER))
        assert world.store.journal is not None
        judges[0].feed(world.store.journal)
        judges[0].finish(runs=world.runs)

    play(2, deed)
    assert not [str(problem) for problem in judges[0].violations if problem.rule == "S12"]
    assert not late


def test_a_machine_that_stood_still_for_a_moment_gives_to_others_what_it_has_not_begun() -> None:
    """It keeps its lease; what of its bundle waits behind slow jobs is looked at when it goes on."""
    begun: dict[str, float] = {}

    async def deed(world: World, *processes: Process) -> None:
        slow = CAPACITY["sync"]
        for index in range(slow):
            world.script(f"{BUNDLE}/{index}", 10.0)
        await processes[0].node.enqueue([order("durable", "m:sync", count=2 * slow)], 0)
        await world.until(lambda: len(world.runs) == slow, 5.0, "all slots of a node are taken")
        frozen = next(process for process in processes if world.runs[0].node.startswith(process.name))
        frozen.freeze()
        await asyncio.sleep(TTL_S / 4)
        frozen.thaw()
        since = world.clock.monotonic()
        await world.until(world.is_empty, 30.0, "all has ended")
        begun.update((run.job, run.at - since) for run in world.runs if run.what == "start")

    play(2, deed)
    assert max(begun.values()) < UNSERVED_S_MAX


def test_a_slow_queue_does_not_hold_up_another() -> None:
    """Its jobs have all slots; the one of another queue has a spare one, half a second later."""
    begun: list[float] = []

    async def deed(world: World, process: Process) -> None:
        slow = CAPACITY["sync"]
        for index in range(slow):
            world.script(f"{BUNDLE}/{index}", 10.0)
        await process.node.enqueue([order("durable", "m:sync", count=slow)], 0)
        await world.until(lambda: len(world.runs) == slow, 5.0, "all slots are taken")
        since, quick = world.clock.monotonic(), bundle_id(BUNDLE.partition("-")[0], 1)
        other = order("durable", "m:sync", bundle=quick, count=1, queue="q1")
        await process.node.enqueue([other], 0)
        await world.until(world.is_empty, 30.0, "all has ended")
        begun.extend(run.at - since for run in world.runs if run.what == "start" and run.job == f"{quick}/0")

    play(1, deed)
    assert [at for at in begun if at < STARVED_S_MAX]
