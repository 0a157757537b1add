"""What lies by name, read with ranges that end soon."""

from __future__ import annotations

import random
from typing import Any

import pytest

from rota.cluster.admin import strides
from rota.cluster.admin.narrow import Narrow
from rota.cluster.admin.strides import Known, Strides
from rota.cluster.ledger.ledger import Ledger, Page, Put, Txn
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.state.keys import Keys

AREA = b"area/"
KEYS = Keys("test")


class Counting:
    """Counts the keys that a store walks over, and the reads."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.walked = self.reads = 0

    async def read(self, key: bytes, end: bytes, **more: Any) -> Page:
        assert key < end
        page = await self._ledger.read(key, end, **more)
        self.walked += page.total
        self.reads += 1
        return page


async def filled(names: dict[str, int]) -> tuple[MemoryLedger, list[bytes]]:
    ledger = MemoryLedger()
    keys = [AREA + f"{name}/{number:06d}".encode() for name, count in names.items() for number in range(count)]
    for at in range(0, len(keys), 100):
        await ledger.commit(Txn((), tuple(Put(key, b"x") for key in keys[at:at + 100])))
    await ledger.commit(Txn((), (Put(b"area0", b"beyond"), Put(b"are", b"before"))))
    return ledger, sorted(keys)


async def everything(reading: Strides, size: int) -> list[bytes]:
    found: list[bytes] = []
    while records := await reading.read(size):
        assert len(records) <= size
        found += [record.key for record in records]
    return found


NAMES = {
    "numbers": {f"tenant-{n:04d}": 3 for n in range(600)} | {"backlog": 900, "z": 1},
    "any": {f"{random.Random(n).getrandbits(64):016x}": 2 for n in range(400)},
    "inside each other": {"a": 5, "a.b": 4, "a-b": 70, "aa": 1, "aaa": 300, "a" * 200: 2, "\u00e9t\u00e9": 3},
    "none": {},
}


@pytest.fixture(autouse=True)
def dear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strides, "DEAR", 100)


@pytest.mark.parametrize("kind", NAMES)
async def test_everything_is_read_once_and_in_order_from_anywhere(kind: str) -> None:
    ledger, keys = await filled(NAMES[kind])
    known = Known()
    for size in (1, 7, 500, 7):
        assert await everything(Strides(ledger, AREA), size) == keys
        assert await everything(Strides(ledger, AREA, known=known), size) == keys
    for name in sorted(NAMES[kind], key=lambda name: name.encode() + b"/")[::40]:
        behind = [key for key in keys if key > AREA + name.encode() + b"/\xff"]
        assert await everything(Strides(ledger, AREA, name.encode()), 100) == behind
    await ledger.close()


async def test_what_is_skipped_costs_nothing_and_what_lies_behind_neither() -> None:
    ledger, keys = await filled(NAMES["numbers"])
    counting = Counting(ledger)
    reading = Strides(counting, AREA)           # type: ignore[arg-type]
    assert (await reading.read(10))[0].key == keys[0]
    begun = counting.walked
    names = []
    reading.skip(b"backlog")
    while records := await reading.read(2):
        names.append(records[0].key[len(AREA):].partition(b"/")[0])
        reading.skip(names[-1])
    assert names == sorted(name.encode() for name in NAMES["numbers"] if name != "backlog")
    assert counting.walked - begun < 60 * len(names), "with ranges to the end it is 900 for each"
    assert counting.reads < 6 * len(names)
    await ledger.close()


async def test_a_page_in_the_middle_walks_over_no_more_than_some_pages() -> None:
    ledger, _ = await filled(NAMES["numbers"])
    counting = Counting(ledger)
    reading = Strides(counting, AREA, b"tenant-0123")       # type: ignore[arg-type]
    read = 0
    while read < 150:
        read += len(await reading.read(50))
    assert counting.walked < 1_500
    await ledger.close()


async def test_where_the_first_ones_lie_is_found_out_once() -> None:
    ledger, keys = await filled({"zz": 2_000, "zzz": 10})
    counting, known = Counting(ledger), Known()
    for expected in (2_200, 300):
        before = counting.walked
        reading = Strides(counting, AREA, known=known)          # type: ignore[arg-type]
        assert (await reading.read(5))[0].key == keys[0]
        assert counting.walked - before < expected
    await ledger.commit(Txn((), (Put(AREA + b"a/1", b""),)))
    assert (await Strides(ledger, AREA, known=known).read(5))[0].key == AREA + b"a/1", "something new before it"
    await ledger.close()


async def test_where_things_lie_is_found_out_once_for_all_lists_of_a_node() -> None:
    """The count that a node makes as it starts walks over all that waits; then neither a list of jobs does, nor one of
    queues."""
    ledger, known = MemoryLedger(), Known()
    jobs = [KEYS.job("later", 0, 1_000 + number, f"{number}") for number in range(500)]
    for at in range(0, len(jobs), 100):
        await ledger.commit(Txn((), tuple(Put(key, b"x") for key in jobs[at:at + 100])))
    counting: Any = Counting(ledger)
    assert await Strides(counting, KEYS.jobs, known=known).read(2)
    assert counting.walked >= 500
    counting.walked = 0
    async for page in Narrow(counting, KEYS, known).pages(KEYS.jobs, b"", 10):
        assert page.records[0].key == jobs[0]
        break
    assert counting.walked <= 300       # (as many orders as are asked for at a time)
    await ledger.close()
