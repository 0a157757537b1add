"""What the master lends, and what a transaction looks at before a bundle begins with its enqueue."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from rota.client.model import Rate
from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.state.express import ahead_of_nothing, is_plain
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import TaskRecord

KEYS = Keys("c")
PLAIN = TaskRecord("sync")


@pytest.mark.parametrize("more", [
    {"max_concurrency": 2}, {"max_per_key": 2}, {"rate": Rate(1, 1.0)}, {"rate_per_key": Rate(1, 1.0)}, {"weight": 2},
    {"requires": ("gpu",)}, {"on_orphan": "fail"},
])
def test_a_task_whose_jobs_wait_for_more_than_a_slot_is_not_plain(more: dict[str, object]) -> None:
    assert is_plain(PLAIN) and not is_plain(replace(PLAIN, **more))


@pytest.mark.parametrize(("before", "holds"), [
    (KEYS.flag("q"), False), (KEYS.queue("q"), False), (KEYS.task("m:f"), False), (KEYS.express, False),
    (KEYS.flag("qq"), True), (KEYS.queue("qq"), True),
])
async def test_whatever_stands_before_it_is_seen_by_the_transaction(before: bytes, holds: bool) -> None:
    ledger = MemoryLedger()
    at = (await ledger.commit(Txn((), (Put(KEYS.task("m:f"), b"t"), Put(KEYS.express, b"e"))))).revision
    await ledger.commit(Txn((), (Put(before, b"x"),)))
    ahead = ahead_of_nothing(KEYS, "q", "m:f", word_at=at, task_at=at)
    assert (await ledger.commit(Txn(ahead, ()))).succeeded is holds


def test_none_of_its_conditions_is_on_a_range() -> None:
    """The store would walk over all that ended there since it was last compacted (decision 36)."""
    assert not any(condition.range_end for condition in ahead_of_nothing(KEYS, "q", "m:f", word_at=1, task_at=1))
