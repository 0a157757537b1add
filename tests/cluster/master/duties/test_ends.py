"""What comes into a serial queue late stands at its very end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rota.cluster.ledger.commits import Commits, Write, unmodified
from rota.cluster.ledger.ledger import Condition, Put, Txn
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.master.duties.ends import TOGETHER, Ends, Entry
from rota.cluster.state.keys import Keys

KEYS = Keys("t")


def entry(name: str, order: int = 1, queue: str = "s", *conditions: Condition) -> Entry:
    def write(order: int, tail: Condition | None) -> Write:
        moved = (Put(KEYS.tail(queue), str(order).encode()),) if tail is not None else ()
        guards = (tail,) if tail is not None else ()
        return Write((*guards, *conditions), (Put(name.encode(), str(order).encode()), *moved))

    return Entry(queue, order, write)


async def stage(ledger: MemoryLedger, deed: Callable[[Ends], object]) -> list[int]:
    async with Commits(ledger) as commits:
        await deed(Ends(ledger, KEYS, commits, lambda queue: queue == "s"))  # type: ignore[misc]
    page = await ledger.read(b"b", b"c")
    return [int(record.value) for record in sorted(page.records, key=lambda record: int(record.key[1:]))]


async def test_each_stands_behind_the_one_before_and_behind_the_tail() -> None:
    ledger = MemoryLedger()
    await ledger.commit(Txn((), (Put(KEYS.tail("s"), b"50"),)))
    many = [entry(f"b{number}") for number in range(2 * TOGETHER + 3)]
    assert await stage(ledger, lambda ends: ends.enter_all(many)) == list(range(51, 51 + len(many)))
    assert (await ledger.read(KEYS.tail("s"))).records[0].value == str(50 + len(many)).encode()


async def test_in_another_queue_the_order_is_its_own() -> None:
    ledger = MemoryLedger()
    assert await stage(ledger, lambda ends: ends.enter_all([entry("b1", 7, "q"), entry("b2", 9, "q")])) == [7, 9]
    assert not (await ledger.read(KEYS.tail("q"))).records


async def test_of_those_that_come_together_one_that_has_moved_keeps_no_other_back() -> None:
    ledger = MemoryLedger()
    some = [entry("b1"), entry("b2", 1, "s", unmodified(b"moved", 5)), entry("b3")]
    assert await stage(ledger, lambda ends: ends.enter_all(some)) == [1, 2]


async def test_who_comes_at_the_same_time_waits_for_its_turn() -> None:
    ledger = MemoryLedger()

    async def both(ends: Ends) -> None:
        verdicts = await asyncio.gather(*(ends.enter(entry(f"b{number}")) for number in range(5)))
        assert all(verdict.applied for verdict in verdicts)

    assert sorted(await stage(ledger, both)) == [1, 2, 3, 4, 5]
