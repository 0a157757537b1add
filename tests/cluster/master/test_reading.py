"""A page of a lane is read in windows: nothing is left out, and what lies behind it is not walked over."""

from __future__ import annotations

import random
from typing import Any

import pytest

from rota.cluster.ledger.ledger import Page, Put, Txn, prefix_end
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.master.dispatch.picture import Picture
from rota.cluster.master.reading import read_lane
from rota.cluster.master.snapshot import first_pages, given_last
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Token, claim_of, encode

KEYS = Keys("t")


class Walked(MemoryLedger):
    """Counts the keys that etcd walks over: all of each range that is read."""

    keys = 0

    async def read(self, key: bytes, range_end: bytes = b"", **how: Any) -> Page:
        self.keys += len((await super().read(key, range_end, revision=how.get("revision", 0))).records)
        return await super().read(key, range_end, **how)


async def filled(orders: list[int], queue: str = "q") -> Walked:
    ledger = Walked()
    for start in range(0, len(orders), 100):
        await ledger.commit(Txn((), tuple(
            Put(KEYS.job(queue, 0, order, f"b{start + number}"), encode(Token("m:f", queue, 0, order, 1, "async", 0)))
            for number, order in enumerate(orders[start : start + 100])
        )))
    return ledger


@pytest.mark.parametrize("seed", range(20))
async def test_page_by_page_it_is_what_one_read_shows(seed: int) -> None:
    rng = random.Random(seed)
    highest = rng.choice((5, 60, 3_000, 10**9))
    ledger = await filled([rng.randrange(highest) for _ in range(rng.choice((0, 1, 40, 200)))])
    await ledger.commit(Txn((), (Put(KEYS.lane("q", 0) + b"rubbish", b"?"), Put(KEYS.job("q", 1, 5, "x"), b"?"))))
    for _ in range(highest if highest < 100 else 0):
        await ledger.commit(Txn((), (Put(b"other", b""),)))         # revisions beyond all orders
    lane = KEYS.lane("q", 0)
    whole = (await ledger.read(lane, prefix_end(lane))).records
    limit, first_stop = rng.choice((1, 7, 300)), rng.choice((0, 3, highest // 2, 10**15))
    found, after, more = [], b"", True
    while more:
        page = await read_lane(ledger, KEYS, "q", 0, limit=limit, after=after, first_stop=0 if after else first_stop)
        assert len(page.records) == limit or not page.more
        found += page.records
        after, more = page.records[-1].key if page.records else after, page.more
    assert found == list(whole)


async def test_of_many_that_wait_a_new_master_and_each_page_walk_over_few() -> None:
    ledger = await filled([5_000 + number // 3 for number in range(6_000)])
    for _ in range(8_000):
        await ledger.commit(Txn((), (Put(b"other", b""),)))
    claims = [Token("m:f", "q", 0, 4_990 + number, 1, "async", 0) for number in range(8)]
    await ledger.commit(Txn((), tuple(
        Put(KEYS.claim("n1", f"c{number}"), encode(claim_of(token, 5))) for number, token in enumerate(claims)
    )))
    claimed = await ledger.read(KEYS.claims, prefix_end(KEYS.claims))
    given = given_last(claimed.records)
    assert given == {("q", 0): 4_997}
    picture = Picture(KEYS)
    ledger.keys = 0
    await first_pages(ledger, KEYS, picture, claimed.revision, given)
    assert picture.queues["q"].size == 1_000
    assert ledger.keys < 3_000
    ledger.keys = 0
    last = max(picture.queues["q"].windows[0].places)
    assert len((await read_lane(ledger, KEYS, "q", 0, limit=500, after=last)).records) == 500
    assert ledger.keys < 2_500
