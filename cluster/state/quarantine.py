"""What must not be run, or not again: it is set aside in the failed set, and stays what it was.

Each job gets a record of its own, with its arguments as they are, so that it can be looked at and retried one by one;
its queue is the one it came from; and who waits for it is told, in a result that this node signs.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from rota.client.ids import index_at
from rota.client.model import Header, ResultEntry
from rota.client.wire.codec import BODY_BYTES_MAX, broken_slices
from rota.client.wire.keyring import Seal

from ..clock import Clock
from ..ledger.buckets import Buckets
from ..ledger.commits import Write, unmodified
from ..ledger.ledger import OPS_MAX, Ledger, Put, Record
from . import moves
from .keys import Keys, whole
from .records import Claim, Token, bits, encode, header_of, hex_bits, token_of
from .splitting import fitting, jobs_in
from .words import Words

ADVICE = {
    "unreadable": "its record is none that this release of rota can read; what is left of it is kept",
    "body missing": "the arguments of this job are gone from the store",
    "body unreadable": "the arguments of this job are no record that this release of rota can read",
    "bad signature": "what it says is not what was signed: somebody without the key has changed it",
    "another's body": "its arguments are those of another job: somebody has exchanged them",
    "code missing": "the code that was shipped by value is gone from the store, or was changed there; ship it again",
    "inputs invalid": "a result that it was to be given is not what a node signed: somebody has changed it",
    "inputs too large": "the results that it was to be given take more than 8 MiB: let jobs in between condense them",
    "steps invalid": "a step that it remembered is not what a node signed: somebody has changed it",
    "lost": 'its node was lost while it may have been running, and its task says on_orphan="fail"',
    "orphaned": "its nodes were lost while it ran, the last one with nothing else to blame: it may be what kills them",
}
"""By the reason that a failed record carries."""

CANNOT_BLOCK = ("orphaned", "body missing", "body unreadable")
"""For these a job leaves its serial queue: it is the node's killer, or there is nothing that could be tried again."""

KEEP_RESULT_S = 3600.0
JOBS_PER_WRITE, BESIDE = 60, 6
"""Of a wide bundle; and what is written beside its jobs."""

TRACEBACK_CHARS_MAX = 1_000
"""Of the bytes of a token that cannot be read."""


class SetAside:
    """Makes the writes; one that leaves something (`left_at`) is to be followed by the next. Raises `LedgerError`
    where the store does not answer: nothing has happened then."""

    def __init__(
        self, ledger: Ledger, keys: Keys, clock: Clock, seal: Seal, buckets: Buckets,
        on_set_aside: Callable[[str, list[int], Token, str], None] = lambda bundle, indexes, token, error: None,
    ) -> None:
        """`on_set_aside` hears of jobs that have failed so, when that is in the store: the bundle as enqueued, indexes,
        token, and why."""
        self._on_set_aside = on_set_aside
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self.seal = seal
        self.words = Words(seal)
        self._buckets = buckets

    async def fail(
        self, who: moves.Conditions, record: Record, token: Token, reason: str, *, node: str = "",
        body: bytes | None = None,
    ) -> Write:
        """For a token or a claim that can be read. `body`: if it is known already. In a serial queue the job stays at
        its place, and blocks it."""
        bundle = _name(record.key)
        plain = self.words.heard_token(bundle, token_of(token) if isinstance(token, Claim) else token)
        if isinstance(token, Claim) and token.serial and reason not in CANNOT_BLOCK:
            at = unmodified(record.key, record.mod_revision)
            blocked = self.words.token(bundle, msgspec.structs.replace(plain, error=ADVICE[reason]))
            write = Write((*who, at), moves.block(self._keys, record.key, bundle, blocked))
            indexes = _indexes(bundle, token, await self._body(bundle) if body is None else body)
            return self._and_tell(write, bundle, indexes, plain, ADVICE[reason])
        if body is None:
            body = await self._body(bundle)
        return await self._write(who, record, plain, reason, node, body, "", token)

    async def unreadable(self, who: moves.Conditions, record: Record) -> Write:
        """For a token that is none, below a key that can be parsed. What its body says of it makes a new one, so that
        it can be retried."""
        body = await self._body(_name(record.key))
        token = self._token_from(record, header_of(body))
        return await self._write(who, record, token, "unreadable", "", body, f"{record.value[:TRACEBACK_CHARS_MAX]!r}")

    async def to_part(self, bundle: str, claim: Claim) -> bytes:
        """The body of a bundle whose jobs go back apart; nothing if they do not, or it cannot be cut (whoever gets it
        next sets it aside)."""
        body = await self._body(bundle) if claim.parts_ways else b""
        return b"" if damage(bundle, claim, body) else body

    async def _body(self, bundle: str) -> bytes:
        page = await self._ledger.read(self._keys.body(bundle))
        return page.records[0].value if page.records else b""

    async def _write(
        self, who: moves.Conditions, record: Record, token: Token, reason: str, node: str, body: bytes, traceback: str,
        was: Token | None = None,
    ) -> Write:
        """With two puts a job. `was`: what lies there, if that can be read."""
        keys, bundle, at = self._keys, _name(record.key), unmodified(record.key, record.mod_revision)
        indexes = _indexes(bundle, token, body)
        if not body and (await self._ledger.read(keys.failure(bundle, indexes[0]), keys_only=True)).records:
            return moves.set_aside(keys, who, at, bundle, token, ())    # they were before, with their arguments
        late = len(moves.forget_steps(keys, bundle, token.late_indexes))
        most = len(indexes) if 2 * len(indexes) + late + BESIDE <= OPS_MAX else min(JOBS_PER_WRITE, len(indexes) - 1)
        cuts = self._parts(body, indexes[:most], reason, last=most == len(indexes))
        most = fitting(cuts)
        indexes, rest = indexes[:most], indexes[most:]
        at_s, stamped = self._clock.wall(), self.words.token(bundle, token)
        failures = [
            put for index, part in zip(indexes, cuts, strict=False) for put in moves.fail(
                keys, bundle, index, stamped, words=self.words, body=part,
                error=ADVICE[reason], traceback=traceback, node=node, at_s=at_s, reason=reason,
            )
        ]
        entries = [ResultEntry(index, "failed", error=ADVICE[reason], attempts=token.attempt) for index in indexes]
        revision = record.create_revision if record.key.startswith(keys.claims) else record.mod_revision
        lease = await self._buckets.of(KEEP_RESULT_S).lease()
        notice = moves.result(keys, self.seal, bundle, entries, revision, lease)
        if rest:
            left, shorter = self._left(record, was, body, indexes, rest)
            write = moves.set_some_aside(keys, who, at, bundle, left, shorter, tuple(failures), (notice,))
        else:
            write = moves.set_aside(keys, who, at, bundle, token, tuple(failures), (notice,))
        return self._and_tell(write, bundle, indexes, token, ADVICE[reason])

    def _parts(self, body: bytes, indexes: list[int], reason: str, *, last: bool) -> list[bytes]:
        """The body of each job; bytes that are none are kept once."""
        if header_of(body) is None:
            return [body if last and len(body) <= BODY_BYTES_MAX else b"", *(b"" for _ in indexes[1:])]
        parts = [[index] for index in indexes]
        return broken_slices(body, parts) if reason == "bad signature" else self.seal.slices(body, parts)

    def _left(
        self, record: Record, was: Token | None, body: bytes, gone: list[int], rest: list[int]
    ) -> tuple[bytes, bytes]:
        """What lies there of a wide bundle until the rest of it is set aside, too, for the same reason: the token, of
        which some jobs are done; or, where it is none of this body, as it is, with a body that holds only those."""
        bundle = _name(record.key)
        header = header_of(body)
        if was is not None and (header is None or belongs(header, bundle, was)):
            return encode(msgspec.structs.replace(was, done=hex_bits(was.done_bits | bits(gone)))), b""
        return record.value if was is None else encode(was), self.seal.slice(body, rest)

    def _and_tell(self, write: Write, bundle: str, indexes: list[int], token: Token, error: str) -> Write:
        return msgspec.structs.replace(
            write, on_applied=lambda: self._on_set_aside(whole(bundle), indexes, token, error)
        )

    def _token_from(self, record: Record, header: Header | None) -> Token:
        """A token for a bundle of which only the body can be read; if that."""
        in_queue, due = self._keys.parse_job(record.key), self._keys.parse_due(record.key)
        queue = in_queue.queue if in_queue is not None else due[1] if due is not None else ""
        if header is None:
            return Token("", queue or "unknown", 0, 0, 1, "sync", 0)
        return Token(
            header.task, header.queue,
            in_queue.priority if in_queue is not None and header.v < 2 else header.priority, 0,
            len(header.indexes), header.mode, 0, python=header.python, function=header.function, key=header.key,
            signed=header.key_id,
        )


def damage(bundle: str, token: Token, body: bytes) -> str:
    """Why a body cannot be that of a token (one of `ADVICE`), or "". Whether it is what was signed, is another question
    (`Keyring.verify`)."""
    if not body:
        return "body missing"
    header = header_of(body)
    if header is None:
        return "body unreadable"
    return "" if belongs(header, bundle, token) else "another's body"


def belongs(header: Header, bundle: str, token: Token) -> bool:
    """Whether body and token are of one bundle, and say the same of it. (The mode is the affair of who runs it.)"""
    return (
        header.bundle == whole(bundle) and len(header.indexes) == token.count
        and not token.done_bits & ~bits(header.indexes)
        and (not token.part or int(token.part, 16) == bits(header.indexes))
        and (header.task, header.queue, header.python, header.function)
        == (token.task, token.queue, token.python, token.function)
        and (header.v < 2 or (header.priority, header.key) == (token.priority, token.key))
    )


def _name(key: bytes) -> str:
    """Of a key that can be parsed."""
    return key.rpartition(b"/")[2].decode()


def _indexes(bundle: str, token: Token, body: bytes) -> list[int]:
    """Which of its jobs have not ended. Where nobody can tell: of a piece the first."""
    header = header_of(body)
    first = header.indexes if header is not None else [index_at(bundle.partition(".")[2])]
    return jobs_in(bundle, token, header) or first


def left_at(write: Write, key: bytes) -> bytes | None:
    """What a write of `SetAside` leaves there: jobs of a wide bundle that are still to be set aside. None: nothing."""
    return next((op.value for op in write.ops if isinstance(op, Put) and op.key == key), None)
