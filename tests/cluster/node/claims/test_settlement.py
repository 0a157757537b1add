"""What is to be written of a bundle: with which leases, and what of it in a store that is full."""

from __future__ import annotations

import random

from rota.cluster.clock import SystemClock
from rota.cluster.ledger.buckets import Buckets
from rota.cluster.ledger.ledger import Delete, Put
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.node.claims.settlement import Kept, Settlement

RESULT, CLAIM = Put(b"result", b"42"), Delete(b"claim")


async def kept() -> Kept:
    ledger, clock = MemoryLedger(), SystemClock()
    return Kept(Buckets(ledger, clock, random.Random(1)).of(60.0), (RESULT.key,))


async def test_what_is_kept_for_a_time_gets_its_lease_and_nothing_else_does() -> None:
    settlement = Settlement((RESULT, Put(b"failed", b""), CLAIM), True, 1, (await kept(),), leased=False)
    leased = settlement.with_leases([7])
    assert leased.leased and leased.ops == (Put(b"result", b"42", 7), Put(b"failed", b""), CLAIM)


async def test_it_is_tried_again_with_new_leases() -> None:
    settlement = Settlement((RESULT, CLAIM), True, 1, (await kept(),)).with_leases([7])
    assert not settlement.refreshed().leased
    assert Settlement((CLAIM,), True, 1).refreshed().leased         # there is nothing to grant


async def test_in_a_full_store_only_what_frees_room_is_left() -> None:
    settlement = Settlement((RESULT, CLAIM), True, 1, (await kept(),), without_puts=(CLAIM,))
    smaller = settlement.delete_only()
    assert smaller.ops == (CLAIM,) and smaller.leased and not smaller.kept and smaller.without_puts is None
