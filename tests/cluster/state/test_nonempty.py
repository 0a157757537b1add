"""Flags of queues go along with whatever puts tokens there."""

from __future__ import annotations

import asyncio

import pytest

from rota.cluster.ledger.commits import Write, created
from rota.cluster.ledger.ledger import OPS_MAX, Delete, Put, Txn, TxnResult
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.state.keys import Keys
from rota.cluster.state.nonempty import commits_of

KEYS = Keys("c")


class Watched(MemoryLedger):
    def __init__(self) -> None:
        super().__init__()
        self.txns: list[Txn] = []

    async def commit(self, txn: Txn) -> TxnResult:
        self.txns.append(txn)
        return await super().commit(txn)

    def flags(self, number: int) -> list[bytes]:
        return [op.key for op in self.txns[number].then if isinstance(op, Put) and op.key.startswith(KEYS.nonempty)]


def waits(queue: str, number: int) -> Write:
    key = KEYS.job(queue, 0, number, f"b-{number}")
    return Write((created(key, 0),), (Put(key, b"token"),))


async def test_once_a_transaction_and_queue() -> None:
    ledger = Watched()
    async with commits_of(ledger, KEYS) as commits:
        await asyncio.gather(*(commits.submit(waits(queue, number)) for queue in ("q", "r") for number in range(5)))
        assert len(ledger.txns) == 1 and ledger.flags(0) == [KEYS.flag("q"), KEYS.flag("r")]
        await commits.submit(Write((), (Delete(KEYS.job("q", 0, 1, "b-1")), Put(KEYS.claim("n", "b-1"), b"claim"))))
        assert ledger.flags(1) == []


async def test_they_count_among_the_operations() -> None:
    ledger = Watched()
    async with commits_of(ledger, KEYS) as commits:
        verdicts = await asyncio.gather(*(commits.submit(waits(f"q{number}", number)) for number in range(OPS_MAX)))
        assert all(verdict.applied for verdict in verdicts)
        assert [len(txn.then) for txn in ledger.txns] == [OPS_MAX, OPS_MAX]


async def test_two_transactions_may_put_the_same_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that takes long keeps no other of its queue waiting."""
    ledger, go_on = Watched(), asyncio.Event()
    original = MemoryLedger.commit

    async def slow(self: MemoryLedger, txn: Txn) -> TxnResult:
        if len(ledger.txns) == 1:
            await go_on.wait()
        return await original(self, txn)

    monkeypatch.setattr(MemoryLedger, "commit", slow)
    async with commits_of(ledger, KEYS) as commits:
        first = commits.submit(waits("q", 1))
        await asyncio.sleep(0.03)
        assert (await commits.submit(waits("q", 2))).applied and not first.done()
        go_on.set()
        assert (await first).applied


async def test_what_is_refused_puts_none() -> None:
    ledger = Watched()
    await ledger.commit(Txn((), (Put(KEYS.job("q", 0, 1, "b-1"), b"other"),)))
    async with commits_of(ledger, KEYS) as commits:
        refused, stored = await asyncio.gather(commits.submit(waits("q", 1)), commits.submit(waits("r", 2)))
        assert not refused.applied and stored.applied
    assert not (await ledger.read(KEYS.flag("q"))).records and (await ledger.read(KEYS.flag("r"))).records
