"""Bundles that were accepted before."""

from __future__ import annotations

from rota.client.errors import InvalidJob
from rota.client.model import Enqueue, Receipt
from rota.client.wire.codec import enqueue_digest
from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.node.intake.repeats import Repeats
from rota.cluster.state.records import ReceiptRecord, encode

from ..bench import BUNDLE, KEYS, body


def bundle(text: bytes) -> Enqueue:
    return Enqueue(BUNDLE, "m:f", "q", 2, "async", text)


async def test_the_same_bundle_gets_the_receipt_of_its_first_time() -> None:
    ledger = MemoryLedger()
    repeats = Repeats(ledger, KEYS)
    assert await repeats.of(bundle(body())) is None
    record = encode(ReceiptRecord(enqueue_digest(body()).hex(), 7))
    stored = await ledger.commit(Txn((), (Put(KEYS.receipt(BUNDLE), record),)))
    assert await repeats.of(bundle(body())) == Receipt(BUNDLE, stored.revision, 7)


async def test_another_with_its_id_is_refused_and_so_is_what_nobody_can_tell() -> None:
    ledger = MemoryLedger()
    repeats = Repeats(ledger, KEYS)
    await ledger.commit(Txn((), (Put(KEYS.receipt(BUNDLE), encode(ReceiptRecord("00", 7))),)))
    other = await repeats.of(bundle(body()))
    assert isinstance(other, InvalidJob) and "other contents" in str(other) and other.repeats == BUNDLE
    await ledger.commit(Txn((), (Put(KEYS.receipt(BUNDLE), b"nonsense"),)))
    damaged = await repeats.of(bundle(body()))
    assert isinstance(damaged, InvalidJob) and "cannot be read" in str(damaged)
