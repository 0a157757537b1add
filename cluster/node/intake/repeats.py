"""Bundles that were accepted before: their receipts say so."""

from __future__ import annotations

from rota.client.errors import EnqueueError, InvalidJob
from rota.client.model import Enqueue, Receipt
from rota.client.wire.codec import enqueue_digest

from ...ledger.ledger import Ledger
from ...state.keys import Keys, shown
from ...state.records import ReceiptRecord, decode


class Repeats:
    def __init__(self, ledger: Ledger, keys: Keys) -> None:
        self._ledger = ledger
        self._keys = keys

    async def of(self, bundle: Enqueue) -> Receipt | EnqueueError | None:
        """If there is a receipt, the same bundle was accepted before, or its id was given to something else."""
        page = await self._ledger.read(self._keys.receipt(bundle.bundle))
        record = page.records[0] if page.records else None
        if record is None:
            return None
        receipt = decode(ReceiptRecord, record.value)
        if receipt is None:         # it will not be read tomorrow either, so this is for certain
            return InvalidJob(
                f"bundle {bundle.bundle} may have been enqueued before: its receipt {shown(record.key)} cannot be read"
            )
        if receipt.digest != enqueue_digest(bundle.body).hex():
            refusal = InvalidJob(f"bundle {bundle.bundle} was enqueued before, with other contents")
            refusal.repeats = bundle.bundle
            return refusal
        return Receipt(bundle.bundle, record.create_revision, receipt.order)
