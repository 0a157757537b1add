"""Where a serial queue ends."""

from __future__ import annotations

from ..ledger.ledger import Ledger
from .keys import Keys
from .records import tail_of


async def end_of(ledger: Ledger, keys: Keys, queue: str) -> tuple[int, int]:
    """(mod revision, order) of its tail; zeros where there is none yet. Raises `LedgerError`."""
    found = (await ledger.read(keys.tail(queue))).records
    return (found[0].mod_revision, tail_of(found[0])) if found else (0, 0)
