"""What a claimed bundle needs before a runner sees a byte of it: its body and its function, read and verified."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from rota.client.codec import Seal
from rota.client.errors import LedgerError, RotaError, SignatureRefused

from ..events.hub import Events
from ..events.records import BundleRefused
from ..ledger.ledger import Get, Ledger, Txn
from ..state.keys import Keys
from .held import Held

FETCH_MAX = 64


class Bodies:
    """Tells `on_ready` of each bundle that may be run, and `on_refused`, with the reason, of each that must not be."""

    def __init__(
        self, ledger: Ledger, keys: Keys, seal: Seal, *, on_ready: Callable[[Held], None],
        on_function: Callable[[Held], None], on_refused: Callable[[Held, str], None], events: Events,
    ) -> None:
        self._ledger = ledger
        self._keys = keys
        self._seal = seal
        self._on_ready = on_ready
        self._on_function = on_function
        self._on_refused = on_refused
        self._events = events
        self._wanted: list[Held] = []
        self.functions: dict[str, bytes] = {}

    def want(self, held: Held) -> None:
        self._wanted.append(held)

    def batches(self) -> Iterator[list[Held]]:
        """Take what is wanted, for `fetch`."""
        while self._wanted:
            batch, self._wanted = self._wanted[:FETCH_MAX], self._wanted[FETCH_MAX:]
            yield batch

    async def fetch(self, batch: list[Held]) -> None:
        txn = Txn((), tuple(Get(self._keys.body(held.bundle)) for held in batch))
        while True:
            try:
                result = await self._ledger.commit(txn)     # reads only: as harmless to repeat as a read
                break
            except LedgerError:
                await asyncio.sleep(0.1)
        for held, answer in zip(batch, result.answers, strict=True):
            if held.over:
                continue
            if answer:
                held.body = answer[0].value
                self._prepare(held)
            else:
                self._on_refused(held, "body missing")

    def _prepare(self, held: Held) -> None:
        """Verify before anything is run; a claim that must not run goes to the failed set."""
        try:
            header, payloads = self._seal.keyring.verify(held.body, self._keys.cluster)
        except RotaError as error:
            self._events.emit(BundleRefused(held.bundle, str(error)))
            self._on_refused(held, "bad signature" if isinstance(error, SignatureRefused) else "unreadable")
            return
        held.header = header
        held.jobs = list(zip(header.indexes, payloads, strict=True))
        self._on_ready(held)

    async def fetch_function(self, held: Held) -> None:
        """The code of a function that was shipped by value."""
        header = held.header
        assert header is not None
        try:
            page = await self._ledger.read(self._keys.function(header.function))
            if not page.records:
                raise LedgerError("the code of this function is gone from the store")
            self.functions[header.function] = self._seal.keyring.open_function(
                header.function, page.records[0].value, self._keys.cluster
            ).code
        except RotaError as error:
            self._events.emit(BundleRefused(held.bundle, str(error)))
            self._on_refused(held, "bad signature")
            return
        if not held.over:
            self._on_function(held)
