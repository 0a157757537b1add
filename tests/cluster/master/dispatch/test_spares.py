"""A queue that waits while nothing of it runs may have a spare slot."""

from __future__ import annotations

from rota.cluster.master.dispatch.spares import AFTER_S
from rota.cluster.state.records import QueueRecord, TaskRecord, encode

from ..table import KEYS, Table


def full(spare: int = 1, **changes: object) -> Table:
    """Two slots, taken by jobs of one queue that go on and on, and more of them."""
    table = Table()
    table.member("n1", slots=2, spare={"sync": spare}, **changes)
    for name in ("s1", "s2", "s3"):
        table.job(name, queue="slow")
    assert table.given() == [("s1", "n1"), ("s2", "n1")]
    assert table.given() == []
    return table


def wait(table: Table) -> None:
    table.given()
    table.now += AFTER_S


def test_a_quick_job_of_another_queue_goes_beyond_the_slots_after_a_while() -> None:
    table = full()
    table.job("q1", queue="quick")
    table.job("q2", queue="quick")
    assert table.given() == []              # its turn may yet come
    table.now += AFTER_S
    assert table.given() == [("q1", "n1")]
    wait(table)
    assert table.given() == []              # neither for what runs already, nor beyond what there is


def test_each_starved_queue_has_one() -> None:
    table = full(spare=2)
    for queue in ("a", "b", "c"):
        table.job(f"{queue}1", queue=queue)
    wait(table)
    assert table.given() == [("a1", "n1"), ("b1", "n1")]


def test_none_where_a_node_has_none_or_something_forbids_it() -> None:
    for table in (full(spare=0), full()):
        paused = table.aggregator.nodes["n1"].member.spare["sync"] > 0
        if paused:
            table.put(KEYS.queue("quick"), encode(QueueRecord(paused=True)))
        table.job("q1", queue="quick")
        wait(table)
        assert table.given() == []
    table = full()
    table.put(KEYS.task("m:f"), encode(TaskRecord("sync", max_concurrency=2)))
    table.job("q1", queue="quick")
    wait(table)
    assert table.given() == []


def test_a_paused_queue_is_not_looked_at_and_has_its_turn_as_soon_as_it_goes_on() -> None:
    """Each decision looked through the gates of each of them, for nothing."""
    table = full()
    table.put(KEYS.queue("quick"), encode(QueueRecord(paused=True)))
    table.job("q1", queue="quick")
    wait(table)
    assert not list(table.aggregator.picture.starved.now(table.now))
    table.put(KEYS.queue("quick"), encode(QueueRecord()))
    assert table.given() == [("q1", "n1")]


def test_a_serial_queue_gets_its_head_and_a_bundle_is_cut() -> None:
    table = full(spare=2)
    table.put(KEYS.queue("line"), encode(QueueRecord(serial=True)))
    table.job("l1", queue="line")
    table.job("l2", queue="line")
    table.job("many", count=60, queue="bulk")
    wait(table)
    commands = table.decide()
    assert [getattr(command, "size", None) or command.item.bundle for command in commands] in (["l1", 1], [1, "l1"])  # type: ignore[union-attr]
