"""Taking jobs out that have not begun, and telling who waits for them that they were cancelled."""

from __future__ import annotations

from typing import Literal

from rota.client.errors import InvalidJob
from rota.client.ids import job_id
from rota.client.model import EXPIRED, ResultEntry
from rota.client.wire.keyring import Seal

from ..ledger.buckets import Buckets
from ..ledger.commits import Write, unmodified
from ..ledger.ledger import Condition, Delete, Ledger, Put, Record
from . import moves
from .keys import Keys
from .records import Token, header_of
from .splitting import jobs_in

REQUESTS_PER_WRITE = 100

CANCEL_S = 3600.0
"""How long the outcome of a cancelled job is kept, and a request to cancel one that a node holds."""


class Discards:
    """Makes the writes. Raises `LedgerError` where the store does not answer: nothing has happened then."""

    def __init__(self, ledger: Ledger, keys: Keys, seal: Seal, buckets: Buckets) -> None:
        self._ledger = ledger
        self._keys = keys
        self._seal = seal
        self._buckets = buckets

    async def waiting(
        self, conditions: tuple[Condition, ...], record: Record, token: Token, index: int | None = None, *,
        why: str = "cancelled",
    ) -> Write | None:
        """Take one job (or all) out of a token that is no claim. None: the job is not in there. Body and token are read
        one after the other, and a split meanwhile leaves other jobs under the same name."""
        bundle = _name(record.key)
        indexes = await self._pending(bundle, token)
        if index is not None and indexes is None:
            raise InvalidJob(f"the arguments of job {job_id(bundle, index)} cannot be read: it will be set aside")
        indexes = indexes or []         # of a body that cannot be read all goes, whatever it was
        if index is not None and index not in indexes:
            return None
        gone = indexes if index is None else [index]
        notices: list[Put | Delete] = []
        if gone:
            notices = [await self._notice(record, token, bundle, gone, why), *self._memory(token, bundle, gone)]
        at = unmodified(record.key, record.mod_revision)
        if len(gone) == len(indexes):
            return moves.cancel(self._keys, conditions, at, bundle, token, notices)
        return moves.cancel_some(conditions, at, token, gone, notices)

    async def expired(self, conditions: tuple[Condition, ...], record: Record, token: Token) -> Write:
        """Too late for all that has not ended of it. Who waits is told."""
        bundle = _name(record.key)
        indexes = await self._pending(bundle, token)
        notices: list[Put | Delete] = []
        if indexes:
            notices = [await self._notice(record, token, bundle, indexes, EXPIRED, "expired")]
            notices += self._memory(token, bundle, indexes)
        at = unmodified(record.key, record.mod_revision)
        return moves.expire(self._keys, conditions, at, bundle, token, notices)

    async def replaced(self, record: Record, token: Token, by: Write, job: str) -> Write:
        """Another job takes the place of the only one of this token: `by` enqueues it. Who waits for this is told."""
        bundle = _name(record.key)
        indexes = await self._pending(bundle, token) or [0]
        notices = await self._notice(record, token, bundle, indexes, f"job {job} has taken its place")
        return moves.replace(self._keys, unmodified(record.key, record.mod_revision), bundle, by, [notices])

    async def held(self, conditions: tuple[Condition, ...], bundle: str, index: int) -> Write:
        """Ask the node that holds this job to stop it."""
        (write,) = await self._held(conditions, bundle, [index])
        return write

    async def claimed(self, conditions: tuple[Condition, ...], record: Record, token: Token) -> list[Write]:
        """The same for all jobs of a claim that have not ended."""
        bundle = _name(record.key)
        return await self._held(conditions, bundle, await self._pending(bundle, token) or [])

    async def _held(self, conditions: tuple[Condition, ...], bundle: str, indexes: list[int]) -> list[Write]:
        lease = await self._buckets.of(CANCEL_S).lease(len(indexes)) if indexes else 0
        return [
            Write(conditions, tuple(Put(self._keys.cancel(bundle, index), b"{}", lease) for index in part))
            for part in (
                indexes[start : start + REQUESTS_PER_WRITE] for start in range(0, len(indexes), REQUESTS_PER_WRITE)
            )
        ]

    def _memory(self, token: Token, bundle: str, gone: list[int]) -> moves.Ops:
        """What they remembered goes with them."""
        return moves.forget_steps(self._keys, bundle, gone) if token.steps else ()

    async def _pending(self, bundle: str, token: Token) -> list[int] | None:
        """Which of its jobs have not ended. None if its body is gone, or is none, and nothing else can tell."""
        page = await self._ledger.read(self._keys.body(bundle))
        header = header_of(page.records[0].value) if page.records else None
        return jobs_in(bundle, token, header)

    async def _notice(
        self, record: Record, token: Token, bundle: str, gone: list[int], why: str = "cancelled",
        status: Literal["cancelled", "expired"] = "cancelled",
    ) -> Put:
        entries = [ResultEntry(i, status, error=why, attempts=token.attempt) for i in gone]
        lease = await self._buckets.of(CANCEL_S).lease()
        return moves.result(self._keys, self._seal, bundle, entries, record.mod_revision, lease)


def _name(key: bytes) -> str:
    return key.rpartition(b"/")[2].decode(errors="replace")
