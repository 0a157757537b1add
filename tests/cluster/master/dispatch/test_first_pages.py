"""What a new master reads of the queues before it decides anything."""

from __future__ import annotations

import pytest

from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.master import snapshot
from rota.cluster.master.dispatch.picture import Picture
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Token, encode

KEYS = Keys("t")


@pytest.mark.parametrize("given", [
    {}, {("b", 0): 1}, {("b", 5): 9, ("c", -3): 4}, {("a", 0): 1, ("b", 0): 0, ("c", -3): 10**15, ("none", 7): 3},
], ids=["nothing", "one", "two", "wrong"])
@pytest.mark.parametrize("page", [1, 2, 3, 100])
async def test_the_head_of_every_lane_is_known(
    page: int, given: dict[snapshot.Lane, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "PAGE_FIRST", page)
    ledger = MemoryLedger()
    lanes = {("a", 0): 1, ("b", 5): 4, ("b", 0): 2, ("c", -3): 5}
    for (queue, priority), number in lanes.items():
        for order in range(1, number + 1):
            token = Token("m:f", queue, priority, order, 1, "async", 0)
            await ledger.commit(Txn((), (Put(KEYS.job(queue, priority, order, f"b{order}"), encode(token)),)))
    await ledger.commit(Txn((), (Put(KEYS.jobs + b"b/rubbish", b"?"), Put(KEYS.jobs + b"z/rubbish", b"?"))))
    revision = (await ledger.read(KEYS.jobs)).revision
    picture = Picture(KEYS)
    await snapshot.first_pages(ledger, KEYS, picture, revision, given)
    found = {
        (queue, priority): window for queue, entry in picture.queues.items()
        for priority, window in entry.windows.items()
    }
    assert found.keys() == lanes.keys()
    for lane, window in found.items():
        head = KEYS.job(*lane, 1, "b1")
        assert head in window.places
        assert window.known_to is not None or window.size == lanes[lane]    # the rest is read later, or there is none
        assert window.loading is None
