"""Work waits for a slot, never for a node (decision 0014)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from rota.cluster.master.dispatch.commands import GiveClaim, Split
from rota.cluster.master.dispatch.lanes import Item
from rota.cluster.master.dispatch.members import NodeLoad
from rota.cluster.master.dispatch.queues import Queue
from rota.cluster.state.records import QueueRecord, TaskRecord, encode

from ..table import KEYS, Table

ASYNC = {"tasks": {"m:f": "async"}, "capacity": {"async": 50, "sync": 0}}


def with_long_jobs(nodes: int, slots: int, **member: object) -> Table:
    """Each node has one slot taken, by a job of another queue that goes on and on."""
    table = Table()
    for number in range(nodes):
        node = f"n{number}"
        table.member(node, slots=slots, **member)
        mode = "async" if member else "sync"
        table.claimed(node, f"long{number}", table.job(f"long{number}", queue="long", mode=mode))
    table.play()
    return table


def waiting(table: Table) -> list[str]:
    """What lies in queues."""
    return [item.bundle for _, item in places(table)]


def places(table: Table) -> Iterator[tuple[Queue, Item]]:
    for queue in table.aggregator.queues.values():
        for window in queue.windows.values():
            for place, lane in window.places.items():
                yield queue, lane.items[place]


def test_a_bundle_larger_than_any_node_has_room_for_goes_to_the_slots_of_all() -> None:
    table = with_long_jobs(3, 50, **ASYNC)
    table.job("bulk", count=60, mode="async")
    held = table.play()
    assert sum(held.values()) == 63 and max(held.values()) <= 50
    assert not waiting(table)


def test_plain_slots_are_filled_likewise() -> None:
    table = with_long_jobs(2, 4)
    table.job("bulk", count=10)
    table.job("single")
    assert table.play() == {"n0": 4, "n1": 4}


def test_single_jobs_behind_a_large_bundle_have_the_slots_it_leaves() -> None:
    table = with_long_jobs(2, 8)
    table.job("bulk", count=10)
    table.job("single", task="m:g")
    table.job("another", queue="other")
    assert sum(table.play().values()) == 2 + 10 + 2
    assert not waiting(table)


def test_what_a_limit_admits_begins_though_no_node_is_idle() -> None:
    table = with_long_jobs(3, 4)
    table.put(KEYS.task("m:g"), encode(TaskRecord("sync", max_concurrency=8)))
    table.job("bulk", task="m:g", count=8)
    assert table.play() == {"n0": 4, "n1": 4, "n2": 3}


def test_suspects_take_what_is_free() -> None:
    table = with_long_jobs(2, 4)
    table.job("bulk", count=6, orphanings=1)
    assert table.play() == {"n0": 4, "n1": 4}


def test_no_more_is_split_than_there_are_slots_for() -> None:
    """A burst behind a long job is not taken apart bundle by bundle."""
    table = with_long_jobs(2, 4)
    for number in range(100):
        table.job(f"bulk{number:02d}", count=60)
    commands = table.decide()
    assert [type(command) for command in commands] == [Split]
    assert table.decide() == []         # while it is under way


def test_a_limited_burst_is_not_taken_apart_either() -> None:
    table = Table()
    table.put(KEYS.task("m:f"), encode(TaskRecord("sync", max_concurrency=2)))
    table.member("n1", slots=8)
    for number in range(100):
        table.job(f"bulk{number:02d}", count=60)
    assert len(table.split()) == 1


def test_quick_jobs_go_out_in_whole_bundles_though_a_slot_is_taken() -> None:
    """As to an idle node (0003): what does not begin soon comes back, and counts as slow then."""
    table = with_long_jobs(1, 4)
    table.job("first")
    table.play()
    table.now += 0.02
    table.ended("n0", "first")
    token = table.job("bulk", count=60)
    assert table.given() == [("bulk", "n0")]
    table.claimed("n0", "bulk", token)
    table.now += 0.1
    table.put(KEYS.claim("n0", "bulk"), encode(table.claim(token, back=57, done=f"{2**57 - 1:x}")))
    table.member("n1", slots=4)
    table.claimed("n1", "long1", table.job("long1", queue="long"))
    table.play()
    table.now += 0.02
    table.job("next", count=60)
    (command,) = table.decide()
    assert isinstance(command, Split) and command.size == 1


def test_of_nodes_with_slots_the_one_with_most_decides_the_pieces() -> None:
    table = Table()
    table.member("small", slots=2)
    table.member("large", slots=50)
    table.claimed("large", "long", table.job("long", queue="long"))
    table.job("bulk", count=60)
    assert table.split() == {"bulk": 49}


# -- the law, on whatever there is -------------------------------------------------------------------------------------


def forbidden(table: Table, queue: Queue, item: Item, node: NodeLoad) -> bool:
    aggregator, token = table.aggregator, item.token
    left = aggregator._allowed(queue, token)
    return (
        left <= 0 or queue.settings.paused or node.is_closed or (token.lost > 0 and len(node.held) > 0)
        or (queue.settings.serial and (queue.running > 0 or queue.certain_head()[1][2] is not item))  # type: ignore[index]
    )


def check(table: Table) -> None:
    """No job waits while a node that subscribes to it has a slot for it, unless something forbids it."""
    for queue, item in places(table):
        family = next(window for window in queue.windows.values() if item.key in window.places).places[item.key].family
        for node in table.aggregator.nodes.values():
            mode = node.member.mode_of(family.id)
            if mode is not None and node.may_run(queue.name, family.id) and not forbidden(table, queue, item, node):
                assert node.idle(mode) <= 0, f"{item.bundle} waits, and {node.name} has {node.idle(mode)} slots"


@pytest.mark.parametrize("seed", range(30))
def test_no_job_waits_while_a_slot_is_free(seed: int) -> None:
    rng = random.Random(seed)
    table = Table()
    tasks = {f"m:{name}": rng.choice(("sync", "async")) for name in "abcd"}
    table.put(KEYS.task("m:a"), encode(TaskRecord("sync", max_concurrency=rng.choice((1, 7, 100)))))
    table.put(KEYS.task("m:b"), encode(TaskRecord("sync", max_per_key=rng.choice((1, 3)))))
    table.put(KEYS.queue("narrow"), encode(QueueRecord(max_concurrency=rng.choice((2, 30)))))
    table.put(KEYS.queue("serial"), encode(QueueRecord(serial=True)))
    for number in range(rng.randint(1, 4)):
        some = {name: mode for name, mode in tasks.items() if rng.random() < 0.8}
        queues = rng.choice((["*"], ["*"], ["q", "narrow"], ["serial", "other"]))
        slots = {"sync": rng.choice((0, 2, 4)), "async": rng.choice((0, 3, 50))}
        table.member(f"n{number}", tasks=some, capacity=slots, queues=queues)
    held: list[GiveClaim] = []
    for step in range(25):
        for _ in range(rng.randint(0, 3)):
            task = rng.choice(list(tasks))
            lost = rng.choice((0, 0, 0, 0, 1))
            table.job(
                f"b{step:02d}{rng.randrange(10**6):06d}", task=task, count=1 if lost else rng.choice((1, 1, 3, 20, 60)),
                queue=rng.choice(("q", "narrow", "serial", "other")), priority=rng.choice((0, 5)),
                key=rng.choice(("", "ann", "bob")), lost=lost, orphanings=lost or rng.choice((0, 0, 0, 1)),
            )
        held += table.given_in_play()
        check(table)
        rng.shuffle(held)
        for _ in range(rng.randint(0, len(held))):
            command = held.pop()
            table.ended(command.node.name, command.item.bundle)
        table.now += rng.choice((0.01, 0.2, 11.0))
        held += table.given_in_play()
        check(table)
