"""What jobs get that have waited for others: their results, read and verified before a runner sees them."""

from __future__ import annotations

from typing import NamedTuple

from rota.client.errors import ResultInvalid
from rota.client.model import ResultEntry
from rota.client.wire.keyring import Seal

from ...ledger.ledger import Ledger
from ...ledger.scan import scan
from ...state.keys import Keys
from ...state.upstream import missing_key

BYTES_MAX = 8 * 1024 * 1024
"""Of results that one job is given: they go to its runner in one frame."""

PAGE = 200

Inputs = dict[str, list[ResultEntry]]


class Elsewhere(NamedTuple):
    """Others have to verify them, with a key of which this is the id."""

    key_id: str


async def fetch(ledger: Ledger, keys: Keys, seal: Seal, bundle: str) -> Inputs | Elsewhere | str:
    """By bundle; or why they cannot be given (one of `quarantine.ADVICE`), or not here. Raises `LedgerError`."""
    found: Inputs = {}
    size = 0
    async for record in scan(ledger, keys.inputs_of(bundle), size=PAGE):
        parsed = keys.parse_input(record.key)
        if parsed is None or not parsed[3]:
            continue
        size += len(record.value)
        if size > BYTES_MAX:
            return "inputs too large"
        try:
            found.setdefault(parsed[1], []).extend(seal.results(parsed[1], record.value).entries)
        except ResultInvalid:
            if key_id := missing_key(seal, record.value):
                return Elsewhere(key_id)
            return "inputs invalid"
    return found
