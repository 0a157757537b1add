"""What the master keeps does not grow with names that were used, nor with what waits."""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import islice

import pytest

from rota.cluster.ledger.ledger import Record
from rota.cluster.master.dispatch import lanes, pages, queues, turns
from rota.cluster.master.dispatch.commands import GiveClaim, LoadPage, TakeOver
from rota.cluster.state.records import QueueRecord, TaskRecord, Token, encode

from ..table import KEYS, Table

ROUND = 200
WINDOW_MAX, PAGE = 2_000, 1_000


def test_a_queue_that_rests_and_wakes_stands_in_line_once() -> None:
    """Its place is put right whenever it comes up: with many, every refill paid for all of them."""
    table = Table()
    table.job("b1")
    queue = table.aggregator.queues["q"]
    (family,) = queue.families()
    for _ in range(20):
        queue.rest()
        assert family.gate.first() is None
        for _ in range(20):
            queue.wake()
            queue.rest()
        queue.wake()
        assert len(family.gate._line) == 1 and family.gate.first() is queue


def weight(table: Table) -> int:
    """How many objects hang on the master's memory."""
    gc.collect()
    seen, found = set[int](), [table.aggregator]
    while found:
        thing = found.pop()
        if id(thing) not in seen and not isinstance(thing, type) and not callable(thing):
            seen.add(id(thing))
            found += gc.get_referents(thing)        # type: ignore[arg-type]
    return len(seen)


def run(table: Table) -> list[str]:
    """What is given out now, to its end."""
    given = table.given_in_play()
    for command in given:
        table.ended(command.node.name, command.item.bundle)
    table.now += 0.03
    return [command.item.bundle for command in given]


def in_queues(table: Table, number: int) -> None:
    table.job(f"b{number}", queue=f"tenant-{number}")
    assert run(table) == [f"b{number}"]


def with_settings_for_a_while(table: Table, number: int) -> None:
    table.put(KEYS.queue(f"tenant-{number}"), encode(QueueRecord(paused=True, serial=number % 2 == 0)))
    table.job(f"b{number}", queue=f"tenant-{number}")
    assert run(table) == []
    table.delete(KEYS.queue(f"tenant-{number}"))
    assert run(table) == [f"b{number}"]


def of_tasks(table: Table, number: int) -> None:
    """A node has them for a while; some are slow, some quick, some limited."""
    table.member("n2", slots=4, tasks={f"m:{number}": "sync"})
    if number % 2:
        table.put(KEYS.task(f"m:{number}"), encode(TaskRecord("sync", max_concurrency=1)))
    table.job(f"b{number}", task=f"m:{number}", count=9)
    assert run(table)
    while run(table):
        pass
    table.delete(KEYS.task(f"m:{number}"))


def that_nobody_knows(table: Table, number: int) -> None:
    token = table.job(f"b{number}", task=f"m:unknown-{number}", queue=f"unknown-{number % 7}")
    assert run(table) == []
    table.delete(KEYS.job(token.queue, 0, token.order, f"b{number}"))


def with_keys(table: Table, number: int) -> None:
    """Two of one key: the second one has to wait."""
    table.put(KEYS.task("m:g"), encode(TaskRecord("sync", max_per_key=1)))
    table.job(f"b{number}", task="m:g", key=f"customer-{number}")
    table.job(f"c{number}", task="m:g", key=f"customer-{number}")
    assert run(table) == [f"b{number}"] and run(table) == [f"c{number}"]


def on_nodes(table: Table, number: int) -> None:
    """A node comes for a queue of its own, and is lost with a job, which is taken over."""
    node, queue = f"come-{number}", f"own-{number}"
    table.member("n1", queues=["q"])
    table.member(node, slots=4, queues=[queue])
    table.job(f"b{number}", queue=queue)
    assert [command.node.name for command in table.given_in_play()] == [node]
    table.delete(KEYS.node(node))
    assert table.decide() == [TakeOver(node)]
    table.ended(node, f"b{number}")


KINDS = (in_queues, with_settings_for_a_while, of_tasks, that_nobody_knows, with_keys, on_nodes)


@pytest.mark.parametrize("use", KINDS)
def test_a_name_that_was_used_costs_nothing_afterwards(
    use: Callable[[Table, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "GATES_KEPT", 10)
    table = Table()
    table.member("n1", slots=4)
    for number in range(ROUND):
        use(table, number)
    before = weight(table)
    for number in range(ROUND, 3 * ROUND):
        use(table, number)
    assert weight(table) < before + ROUND // 2
    assert len(table.aggregator.queues) < 10


# -- what waits --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows and pages of a tenth."""
    monkeypatch.setattr(queues, "WINDOW_MAX", WINDOW_MAX)
    monkeypatch.setattr(pages, "PAGE_NEXT", PAGE)
    monkeypatch.setattr(queues, "PARKED_MAX", 50)
    monkeypatch.setattr(lanes, "PARKED_MAX", 50)


class Store:
    """Tokens of one queue that were there before the master, read page by page."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.records: dict[bytes, Record] = {}
        self.given: list[str] = []
        self.pages = 0
        table.picture.expect_page("q", 0)

    def fill(self, count: int, **changes: object) -> None:
        for _ in range(count):
            order = len(self.records) + 1
            fields: dict[str, object] = {"task": "m:f", "queue": "q", "priority": 0, "order": order, "count": 1}
            token = Token(**(fields | {"mode": "sync", "at": 0} | changes))     # type: ignore[arg-type]
            key = KEYS.job("q", 0, order, f"b{order:06d}")
            self.records[key] = Record(key, encode(token), 1, 1, 1)

    def open(self) -> None:
        self._load(b"", 100)
        self.table.picture.open()

    def _load(self, after: bytes, limit: int) -> None:
        self.pages += 1
        page = list(islice((record for key, record in self.records.items() if key > after), limit + 1))
        self.table.picture.page("q", 0, page[:limit], more=len(page) > limit)

    def run(self) -> None:
        """Until nothing more is decided."""
        while commands := self.table.decide():
            for command in commands:
                if isinstance(command, LoadPage):
                    self._load(command.after, command.limit)
                elif isinstance(command, GiveClaim):
                    self.given.append(command.item.bundle)
                    self.table.settle(command)
                    del self.records[command.item.key]
                    self.table.delete(command.item.key)
            for queue in self.table.aggregator.queues.values():
                assert queue.size <= WINDOW_MAX + PAGE


@pytest.mark.usefixtures("small")
def test_what_nobody_can_run_does_not_hide_what_lies_behind_it() -> None:
    table = Table(is_open=False)
    table.member("n1", slots=4)
    store = Store(table)
    store.fill(2_500, task="m:nobody-has-it")
    store.fill(2)
    store.open()
    store.run()
    assert store.given == ["b002501", "b002502"]
    pages = store.pages
    table.member("n2", slots=4, tasks={"m:nobody-has-it": "sync"})
    store.run()
    assert store.given[2:] == ["b000001", "b000002", "b000003", "b000004"] and store.pages == pages


@pytest.mark.usefixtures("small")
def test_a_key_at_its_limit_does_not_hide_other_keys() -> None:
    table = Table(is_open=False)
    table.put(KEYS.task("m:f"), encode(TaskRecord("sync", max_per_key=1)))
    table.member("n1", slots=3)
    store = Store(table)
    store.fill(2_500, key="ann")
    store.fill(3, key="bob")
    store.open()
    store.run()
    assert store.given == ["b000001", "b002501"]


@pytest.mark.usefixtures("small")
def test_what_was_cut_is_read_when_it_comes_up() -> None:
    """The key has a window of its own, and is served to its end, in order."""
    table = Table(is_open=False)
    table.put(KEYS.task("m:f"), encode(TaskRecord("sync", max_per_key=1)))
    table.member("n1", slots=3)
    store = Store(table)
    store.fill(2_200, key="ann")
    store.fill(2, key="bob")
    store.open()
    store.run()
    table.put(KEYS.task("m:f"), encode(TaskRecord("sync")))
    while any(node.held for node in table.aggregator.nodes.values()):
        for bundle in list(table.aggregator.nodes["n1"].held):
            table.delete(KEYS.claim("n1", bundle))
        table.now += 0.01
        store.run()
    assert not store.records and not table.aggregator.queues
    ann = [bundle for bundle in store.given if bundle <= "b002200"]
    assert ann == sorted(ann) and len(ann) == 2_200


@pytest.mark.usefixtures("small")
def test_far_too_many_kinds_are_cut_as_a_whole_and_nothing_spins() -> None:
    table = Table(is_open=False)
    table.member("n1", slots=4)
    store = Store(table)
    for number in range(2_500):
        store.fill(1, task=f"m:unknown-{number}")
    store.open()
    store.run()
    assert store.pages < 10


def test_a_queue_whose_last_token_was_damaged_is_over_with_it() -> None:
    table = Table()
    token = table.job("b1", queue="once")
    place = KEYS.job("once", 0, token.order, "b1")
    table.put(place, b"\x00 no token")
    table.delete(place)         # it is set aside, or somebody has deleted it
    assert "once" not in table.aggregator.queues
