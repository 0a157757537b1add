"""What a claimed bundle needs before a runner sees a byte of it: its body and its function, read, verified, and
compared with the claim.

A store that does not answer is asked again: it says nothing about a job. A job whose key is not here is not bad,
either: others have to run it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import NamedTuple, TypeVar

from rota.client.errors import LedgerError, RotaError, SignatureRefused
from rota.client.model import Header
from rota.client.wire.codec import function_in

from ...context import IdentityContext
from ...events.records import BundleRefused
from ...ledger.ledger import Get, Txn
from ...state.quarantine import belongs, damage
from ...state.steps import Foreign, Steps
from ...state.steps import fetch as fetch_steps
from ..claims.held import Held
from .inputs import Elsewhere, Inputs, fetch

T = TypeVar("T")

FETCH_MAX = 64
AGAIN_S = 0.1
FUNCTIONS_BYTES_MAX = 32 * 1024 * 1024
"""Of code that was shipped by value, kept in mind; the last used of it."""


class Found(NamedTuple):
    """What came of a look: it may be run; or it must not be, for a reason (one of `quarantine.ADVICE`); or others have
    to verify it, with a key of which this is the id."""

    held: Held
    refused: str = ""
    elsewhere: str | None = None


class Bodies:
    """Reads what is wanted, and verifies it. Refusals are told to whoever listens; what becomes of the bundle is for
    the caller."""

    def __init__(self, context: IdentityContext) -> None:
        self._ledger = context.ledger
        self._keys = context.keys
        self._seal = context.seal
        self._events = context.events
        self._wanted: list[Held] = []
        self._functions: OrderedDict[str, bytes] = OrderedDict()
        self._functions_bytes = 0

    def want(self, held: Held) -> None:
        self._wanted.append(held)

    def batches(self) -> Iterator[list[Held]]:
        """Take what is wanted, for `fetch`."""
        while self._wanted:
            batch, self._wanted = self._wanted[:FETCH_MAX], self._wanted[FETCH_MAX:]
            yield batch

    async def fetch(self, batch: list[Held]) -> AsyncIterator[Found]:
        """One for each that still lies here."""
        txn = Txn((), tuple(Get(self._keys.body(held.bundle)) for held in batch))
        result = await _answer(lambda: self._ledger.commit(txn))     # reads only: as harmless to repeat as a read
        for held, answer in zip(batch, result.answers, strict=True):
            if not held.over:
                held.body = answer[0].value if answer else b""
                yield self._prepare(held)

    def _prepare(self, held: Held) -> Found:
        wrong = damage(held.bundle, held.claim, held.body)
        if wrong:
            return self._refuse(held, wrong)
        try:
            header, payloads = self._seal.keyring.verify(held.body, self._keys.cluster)
        except SignatureRefused as error:
            elsewhere = self._whose(held, error)
            if elsewhere is None:
                return self._refuse(held, "bad signature", str(error))
            return Found(held, elsewhere=elsewhere)
        except RotaError as error:
            return self._refuse(held, "body unreadable", str(error))
        held.header = header
        held.jobs = list(zip(header.indexes, payloads, strict=True))
        return Found(held)

    def _whose(self, held: Held, error: SignatureRefused) -> str | None:
        """The id of the key that is missing here; None if it is not for want of a key. (Two keys can have one id: then
        the token tells them apart, by their marks.)"""
        if error.unknown_key is not None:
            return error.unknown_key
        signed = held.claim.signed or ""
        key_id, _, fingerprint = signed.partition("#")
        return key_id if fingerprint and self._seal.keyring.mark(key_id) != signed else None

    def compare(self, held: Held) -> Found:
        """For a body that this node has verified before: whether the claim says what it says."""
        assert held.header is not None
        if belongs(held.header, held.bundle, held.claim):
            return Found(held)
        return self._refuse(held, "another's body")

    def _refuse(self, held: Held, reason: str, why: str = "") -> Found:
        self._events.emit(BundleRefused(held.bundle, why or reason))
        return Found(held, refused=reason)

    # -- functions that were shipped by value ------------------------------------------------------------------------

    def function(self, header: Header) -> bytes | None:
        """The code that a verified header names, if it is here."""
        code = self._functions.get(header.function)
        if code is not None:
            self._functions.move_to_end(header.function)
        return code

    async def fetch_function(self, held: Held) -> Found | None:
        """None for what does not lie here any more. The signature of the body covers the digest, and so the code:
        whoever stored it, it is what was meant."""
        header = held.header
        assert header is not None
        page = await _answer(lambda: self._ledger.read(self._keys.function(header.function)))
        if held.over:
            return None
        code = function_in(header.function, page.records[0].value) if page.records else None
        if code is None:
            return self._refuse(held, "code missing")
        self._keep(header.function, code)
        return Found(held)

    async def inputs(self, held: Held) -> Inputs | Elsewhere | str:
        """What it gets of the jobs that it waited for; or why it cannot run."""
        return await _answer(lambda: fetch(self._ledger, self._keys, self._seal, held.bundle))

    async def steps(self, held: Held) -> Steps | Foreign | str:
        """What its jobs remember; or why they cannot run."""
        indexes = [index for index, _ in held.without_outcome()]
        return await _answer(lambda: fetch_steps(self._ledger, self._keys, self._seal, held.bundle, indexes))

    def _keep(self, digest: str, code: bytes) -> None:
        if digest not in self._functions:
            self._functions[digest] = code
            self._functions_bytes += len(code)
        while self._functions_bytes > FUNCTIONS_BYTES_MAX and len(self._functions) > 1:
            self._functions_bytes -= len(self._functions.popitem(last=False)[1])


async def _answer(ask: Callable[[], Awaitable[T]]) -> T:
    """Whatever the store's fault is, it passes, or the node ends; the claim waits for it."""
    while True:
        try:
            return await ask()
        except LedgerError:
            await asyncio.sleep(AGAIN_S)
