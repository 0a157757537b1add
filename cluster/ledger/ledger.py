"""The interface of the store, and its values.

Semantics are those of etcd v3: one revision counter for the whole store, transactions that apply at one revision or not
at all, watches that deliver every revision in order. Keys and values are bytes. An implementation translates its own
errors into the `LedgerError` tree of `rota.client.errors`; nothing else may leak.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import Enum
from types import TracebackType
from typing import Protocol, Self, TypeAlias

import msgspec

OPS_MAX = 128
"""Operations in one branch of a transaction that every etcd accepts (`--max-txn-ops`)."""

REQUEST_BYTES_MAX = 1_400_000
"""Bytes of one transaction that every etcd accepts, with room for its own framing (`--max-request-bytes`, 1.5 MiB)."""

class Record(msgspec.Struct, frozen=True, gc=False):
    """A key and its value as stored. Keys-only reads leave `value` empty."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


class Target(Enum):
    """What a condition looks at."""

    CREATE = "create"
    MOD = "mod"
    VERSION = "version"
    VALUE = "value"
    LEASE = "lease"

    __hash__ = object.__hash__      # conditions are hashed by the thousand, and Enum's own hash is a Python function


class Condition(msgspec.Struct, frozen=True, gc=False):
    """A condition of a transaction. With `range_end`, every key of the range must satisfy it; an empty range is
    compared as one absent key (all numbers 0), and fails every comparison of values."""

    key: bytes
    target: Target
    is_: str            # "==", "!=", "<" or ">"
    operand: int | bytes
    range_end: bytes = b""


class Put(msgspec.Struct, frozen=True, gc=False):
    key: bytes
    value: bytes
    lease: int = 0


class Delete(msgspec.Struct, frozen=True, gc=False):
    key: bytes
    range_end: bytes = b""


class Get(msgspec.Struct, frozen=True, gc=False):
    key: bytes
    range_end: bytes = b""
    keys_only: bool = False
    limit: int = 0


Op: TypeAlias = Put | Delete | Get


class Txn(msgspec.Struct, frozen=True, gc=False):
    conditions: tuple[Condition, ...]
    then: tuple[Op, ...]
    orelse: tuple[Op, ...] = ()


class TxnResult(msgspec.Struct, frozen=True, gc=False):
    """`answers` has one entry per operation of the branch taken: the records a Get found, `()` for others."""

    succeeded: bool
    revision: int
    answers: tuple[tuple[Record, ...], ...]


class Page(msgspec.Struct, frozen=True, gc=False):
    """Records of one read, ascending by key. `revision` is the store's when it was read (the asked one if given);
    `total` how many keys lie in the range, whatever the limit."""

    records: tuple[Record, ...]
    revision: int
    more: bool
    total: int = 0


class Event(msgspec.Struct, frozen=True, gc=False):
    """One change. A delete carries only key and `mod_revision` (the revision of the delete) in its record."""

    deleted: bool
    record: Record


class Changes(msgspec.Struct, frozen=True, gc=False):
    """What a watch delivers: events, in order, and the revision up to which everything has now been seen.
    Events of one revision are never spread over two `Changes`. Progress comes as `Changes` without events."""

    revision: int
    events: tuple[Event, ...]


class StoreStatus(msgspec.Struct, frozen=True):
    version: str                # of the oldest member reached, e.g. "3.5.16"
    revision: int
    bytes_total: int            # database file
    bytes_in_use: int
    no_space: bool              # the NOSPACE alarm is on
    quota_bytes: int | None     # None where the server does not tell
    cluster_id: int


class Watch(Protocol):
    """An open watch: iterate it, inside `async with`. Reconnects and changes of endpoint happen inside. Raises
    `Compacted` when the revisions to resume from are gone (list again, open a new one), `StoreRewound` after a restore
    from backup (also for a watch that starts beyond the store's next revision), `LedgerUnavailable` once it or the
    ledger is closed."""

    def __aiter__(self) -> AsyncIterator[Changes]: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Ledger(Protocol):
    async def read(
        self,
        key: bytes,
        range_end: bytes = b"",
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        serializable: bool = False,
        min_mod_revision: int = 0,
    ) -> Page:
        """Read a key, or the range [key, range_end), linearizably unless `serializable`. Safe to retry, so it is
        retried inside over all endpoints until its deadline. Raises Compacted, LedgerUnavailable, LedgerDenied."""
        ...

    async def commit(self, txn: Txn) -> TxnResult:
        """Apply one guarded transaction. Tried once: raises `WriteUnknown` when its fate is unknown (the caller
        repeats the same transaction), `LedgerUnavailable` when it was certainly not applied, `TransactionTooLarge`,
        `TransactionInvalid`, `LeaseGone`, `StoreBusy`, `LedgerDenied` when it was refused, and `StoreRewound` if the
        store went back in time (then it may have been applied; everything after it is refused). `NoSpace` nearly
        always is a refusal, but the write that sets off the alarm can have been applied: treat it as unknown, too."""
        ...

    def watch(
        self, key: bytes, range_end: bytes = b"", *, from_revision: int, deletes_only: bool = False
    ) -> Watch:
        """Watch a key or a range from `from_revision` (inclusive) on. `deletes_only`: what is put there is not told,
        and costs nothing."""
        ...

    async def grant(self, ttl_s: int, lease: int) -> int:
        """Grant a lease under an id chosen by the caller (1 .. 2**63-1). Returns the granted TTL, which may be longer
        than asked. Granting the same id again after an unknown outcome succeeds. Raises NoSpace, LedgerUnavailable."""
        ...

    async def keep_alive(self, lease: int) -> int:
        """Renew a lease once. Returns its TTL in seconds; raises `LeaseGone` if there is none, `LedgerUnavailable` if
        no endpoint answered in time."""
        ...

    async def revoke(self, lease: int) -> None:
        """Revoke a lease, deleting its keys in one revision. A lease that is gone already is no error."""
        ...

    async def status(self) -> StoreStatus: ...

    async def compact(self, revision: int) -> None:
        """Drop history before `revision`. Compacting twice is no error."""
        ...

    async def close(self) -> None: ...


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys that start with `prefix`; b"\\0" (everything above) if there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\0"


def is_empty(key: bytes, range_end: bytes) -> bool:
    """Whether no key can lie in [key, range_end)."""
    return range_end not in (b"", b"\0") and key >= range_end
