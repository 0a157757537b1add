"""The ends of serial queues, as a node has last seen them."""

from __future__ import annotations

import asyncio

from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.node.intake import tails as module
from rota.cluster.node.intake.tails import Tails

from ..bench import KEYS


async def test_an_end_is_read_where_it_is_not_known_and_used_once() -> None:
    ledger = MemoryLedger()
    tails = Tails(ledger, KEYS)
    assert await tails.end_of("q") == (0, 0)
    revision = (await ledger.commit(Txn((), (Put(KEYS.tail("q"), b"12"),)))).revision
    assert await tails.end_of("q") == (revision, 12)
    tails.stored("q", 99, 13)
    assert await tails.end_of("q") == (99, 13)              # as this node has just left it
    assert await tails.end_of("q") == (revision, 12)        # whoever asks again has not stored: another may have


async def test_each_queue_has_one_turn_and_those_of_idle_ones_are_forgotten() -> None:
    tails = Tails(MemoryLedger(), KEYS)
    assert tails.turn("q") is tails.turn("q") and tails.turn("q") is not tails.turn("r")
    async with tails.turn("busy"):
        busy = tails.turn("busy")
        tails._locks.update((str(number), asyncio.Lock()) for number in range(module.TAILS_MAX))
        tails.turn("new")
        assert tails.turn("busy") is busy and len(tails._locks) == 2
