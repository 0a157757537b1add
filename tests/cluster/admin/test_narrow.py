"""What waits, read from any place on, with ranges that end soon."""

from __future__ import annotations

from typing import Any

import pytest

from rota.cluster.admin.narrow import Narrow
from rota.cluster.ledger.ledger import Delete, Ledger, Page, Put, Txn, prefix_end
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.state.keys import Keys

KEYS = Keys("c")


class Counting:
    """Counts the keys that a store walks over for its answers."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.walked = 0

    async def read(self, key: bytes, end: bytes, **more: Any) -> Page:
        self.walked += len((await self._ledger.read(key, end, keys_only=True)).records)
        return await self._ledger.read(key, end, **more)


async def filled(orders: list[tuple[str, int, int]]) -> tuple[MemoryLedger, list[bytes]]:
    ledger = MemoryLedger()
    keys = [KEYS.job(*lane, order, f"b{number:06d}") for number, (*lane, order) in enumerate(orders)]
    for at in range(0, len(keys), 100):
        await ledger.commit(Txn((), tuple(Put(key, b"x") for key in keys[at:at + 100])))
    while (await ledger.read(b"x")).revision < 2_000:
        await ledger.commit(Txn((), (Put(b"x", b""),)))
    return ledger, sorted(keys)


async def all_of(narrow: Narrow, prefix: bytes, after: bytes = b"", size: int = 50) -> list[bytes]:
    return [record.key async for page in narrow.pages(prefix, after, size) for record in page.records]


ORDERS = [
    *(("a", 0, 1_000 + n // 7) for n in range(700)), *(("a", 5, 3 + 190 * n) for n in range(10)), ("b", 0, 1_999),
    *(("ab", -3, 17) for _ in range(120)),
]


async def test_it_finds_everything_in_order_from_anywhere() -> None:
    ledger, keys = await filled(ORDERS)
    narrow = Narrow(ledger, KEYS)
    for _ in range(2):              # afresh, and with what is remembered
        assert await all_of(narrow, KEYS.jobs) == keys
    for prefix in (KEYS.queue_jobs("a"), KEYS.queue_jobs("ab"), KEYS.queue_jobs("none")):
        assert await all_of(narrow, prefix) == [key for key in keys if key.startswith(prefix)]
    for at in range(0, len(keys), 37):
        assert await all_of(narrow, KEYS.jobs, keys[at]) == keys[at + 1:]
    await ledger.close()


async def test_what_is_remembered_may_be_gone_or_not_the_first_any_more() -> None:
    ledger, keys = await filled(ORDERS)
    narrow = Narrow(ledger, KEYS)
    assert await all_of(narrow, KEYS.jobs) == keys
    for key in keys[:300]:
        await ledger.commit(Txn((), (Delete(key),)))
    assert await all_of(narrow, KEYS.jobs) == keys[300:]
    early = KEYS.job("a", 90, 1, "early")
    await ledger.commit(Txn((), (Put(early, b"x"),)))
    assert await all_of(narrow, KEYS.jobs) == [early, *keys[300:]]
    await ledger.close()


async def test_keys_of_others_stop_nothing() -> None:
    ledger, keys = await filled([("a", 0, 5), ("c", 0, 7)])
    stray = KEYS.jobs + b"b/what"
    await ledger.commit(Txn((), (Put(stray, b"x"),)))
    assert await all_of(Narrow(ledger, KEYS), KEYS.jobs) == sorted([*keys, stray])
    await ledger.close()


@pytest.mark.parametrize("after", [0, 2_000, 4_900])
async def test_a_part_costs_what_it_holds_and_not_what_lies_behind_it(after: int) -> None:
    ledger, keys = await filled([("a", 0, 100 + n // 3) for n in range(5_000)])
    counting = Counting(ledger)
    narrow = Narrow(counting, KEYS)     # type: ignore[arg-type]
    async for _page in narrow.pages(KEYS.jobs, b"", 100):
        break                           # where it begins is found once, by walking over all
    counting.walked = 0
    async for page in narrow.pages(KEYS.jobs, keys[after] if after else b"", 100):
        assert len(page.records) >= 99 or after == 4_900
        break
    assert counting.walked <= 3 * 256 + 100
    assert prefix_end(KEYS.jobs) > keys[-1]
    await ledger.close()
