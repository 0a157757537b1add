"""Moments at which a feature of dispatch hangs in the balance, told by what is being committed.

The nemesis lies in wait for one of them, and strikes when the transaction has been sent, or has just been applied and
nobody has heard of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from rota.cluster.ledger.ledger import Delete, Put, Txn
from rota.cluster.state.keys import Keys, whole

from .history import Order
from .plans import NARROW, SERIAL, TASKS

MOMENTS = (
    "a job under a limit is given out", "a job under a limit has ended", "the head of a serial queue is given out",
    "the head of a serial queue has ended", "a due job is moved", "a retry is put off", "a delayed job is stored",
    "a job is marked as started", "an orphan is taken over", "a bundle is split",
)


class _Traits(NamedTuple):
    """What a transaction does to tokens: areas of puts and deletes, by bundle."""

    puts: dict[str, set[str]]
    deletes: dict[str, set[str]]


class Scout:
    """Tells which of the moments a transaction is."""

    def __init__(self, keys: Keys, orders: Mapping[str, Order]) -> None:
        self._areas = {"jobs": keys.jobs, "claims": keys.claims, "scheduled": keys.scheduled, "receipts": keys.receipts}
        self._keys = keys
        self._orders = orders

    def moments(self, txn: Txn) -> list[str]:
        traits = self._traits(txn)
        fenced = any(condition.key.startswith(self._keys.master) for condition in txn.conditions)
        found: dict[str, None] = {}
        for bundle in [*traits.puts, *traits.deletes]:
            put, gone = traits.puts.get(bundle, set()), traits.deletes.get(bundle, set())
            order = self._orders.get(bundle)
            if order is not None:
                found.update(dict.fromkeys(_moments(order, put, gone, fenced)))
        return list(found)

    def _traits(self, txn: Txn) -> _Traits:
        traits = _Traits({}, {})
        for op in txn.then:
            if isinstance(op, Put | Delete):
                area = next((name for name, prefix in self._areas.items() if op.key.startswith(prefix)), None)
                if area is not None:
                    bundle = whole(op.key.rpartition(b"/")[2].decode())
                    (traits.puts if isinstance(op, Put) else traits.deletes).setdefault(bundle, set()).add(area)
        return traits


def _moments(order: Order, put: set[str], gone: set[str], fenced: bool) -> list[str]:
    info = TASKS[order.task]
    limited = info.max_concurrency is not None or info.max_per_key is not None or order.queue == NARROW
    given, ended = "claims" in put and "jobs" in gone, "claims" in gone and not put
    return [moment for moment, is_it in zip(MOMENTS, (
        limited and given,
        limited and ended,
        order.queue == SERIAL and given,
        order.queue == SERIAL and "claims" in gone and not fenced,
        "scheduled" in gone and "jobs" in put,
        "claims" in gone and "scheduled" in put and not fenced,
        "claims" in put and "receipts" in put,
        info.on_orphan == "fail" and put == {"claims"} and not gone,
        fenced and "claims" in gone,
        fenced and "jobs" in gone and "jobs" in put,
    ), strict=True) if is_it]
