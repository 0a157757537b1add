"""What must not be run is set aside in the failed set; what only others can verify is told apart from it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine

from msgspec.structs import replace

from rota.client.errors import LedgerError

from ...context import IdentityContext
from ...events.records import KeyMissing
from ...events.sparse import Sparse
from ...ledger.commits import Write
from ...ledger.ledger import Record
from ...recent import Recent
from ...state.quarantine import SetAside, left_at
from ...state.records import Claim, decode, encode
from ..claims.held import Held
from ..outcomes.reporter import AGAIN_S

log = logging.getLogger(__name__)
trying = Sparse(log)

MISSING_MAX = 100
"""Ids of missing keys that are said once each."""


class Refusals:
    """One identity's. What is returned as a coroutine goes on until the store has taken it."""

    def __init__(self, context: IdentityContext, aside: SetAside) -> None:
        self._context = context
        self._aside = aside
        self._missing: Recent[str, None] = Recent(MISSING_MAX)      # ids of keys that jobs had and this node has not

    def refuse(self, held: Held, reason: str) -> Coroutine[None, None, None]:
        """`reason`: one of `quarantine.ADVICE`."""
        record, body = replace(held.record, mod_revision=held.mod_revision, value=encode(held.claim)), held.body

        def make(now: Record) -> Awaitable[Write]:
            claim = decode(Claim, now.value)
            assert claim is not None        # we have written it
            return self._aside.fail(
                (self._context.member,), now, claim, reason, node=self._context.node, body=body
            )

        return self._insist(record, make)

    def unreadable(self, record: Record) -> Coroutine[None, None, None]:
        """A claim that is none."""
        return self._insist(record, lambda now: self._aside.unreadable((self._context.member,), now))

    async def _insist(self, record: Record, make: Callable[[Record], Awaitable[Write]]) -> None:
        """Until the store has taken all of it, or the claim is not ours any more. What we know of it counts, whatever
        somebody has written over it."""
        while True:
            try:
                write = await make(record)
                verdict = await self._context.commits.submit(write)
                left, found = left_at(write, record.key), verdict.found
                if verdict.applied and left is not None:
                    record = replace(record, value=left, mod_revision=verdict.revision)
                elif verdict.applied or found is None or found.create_revision != record.create_revision:
                    return
                else:
                    record = replace(record, mod_revision=found.mod_revision)
            except LedgerError as error:
                trying.warn("not set aside, to be tried again: %s", error)
                await asyncio.sleep(AGAIN_S)

    def note_missing(self, held: Held, key_id: str) -> bool:
        """A key is not here. Says so, once; and in the claim, so that the master gives it to others. Returns whether it
        can know by now: one that knew, and gave it to us, does not look at keys (it is of the release before)."""
        if key_id not in self._missing and len(self._missing) < MISSING_MAX:
            self._missing.put(key_id, None)
            self._context.events.emit(KeyMissing(held.bundle, key_id))
        signed = held.claim.signed
        if signed is not None and signed.partition("#")[0] == key_id:
            return False
        held.claim = replace(held.claim, signed=key_id)
        return True
