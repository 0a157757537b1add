"""The server of the store in memory: etcd's semantics in one process, without waiting for anything.

Transactions, leases, limits and the alarm; the versions lie in `keyspace.py`. Every method takes effect at once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Protocol

import msgspec

from rota.client.errors import (
    Compacted,
    LeaseGone,
    NoSpace,
    TransactionInvalid,
    TransactionTooLarge,
)

from ..clock import Clock, SystemClock
from .keyspace import Change, Keyspace, covers
from .ledger import OPS_MAX, Condition, Delete, Get, Op, Page, Put, Record, StoreStatus, Target, Txn, TxnResult

REQUEST_BYTES_MAX = 1536 * 1024
"""etcd's `--max-request-bytes`."""

QUOTA_BYTES = 2 * 1024**3
"""etcd's `--quota-backend-bytes`."""

LEASE_TTL_MIN_S = 2
LEASE_TTL_MAX_S = 9_000_000_000
EXPIRY_PERIOD_S = 0.5
"""How often etcd looks for expired leases."""

VERSION = "3.5.33"
OP_OVERHEAD_BYTES = 16
_ABSENT = Record(b"", b"", 0, 0, 0)

_COMPARE: dict[str, Callable[[int], bool]] = {
    "==": lambda order: order == 0,
    "!=": lambda order: order != 0,
    "<": lambda order: order < 0,
    ">": lambda order: order > 0,
}


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A revision in the journal: when, by which handle, under which transaction (None: a lease that ended)."""

    revision: int
    at: float                       # seconds, the store's monotonic clock
    writer: str
    txn: Txn | None
    changes: tuple[Change, ...]


class Listener(Protocol):
    def offer(self, revision: int, changes: tuple[Change, ...]) -> None:
        """Hear of a revision that has just been committed."""
        ...


class Lease:
    """Its keys are kept in the order they were attached; they are deleted in the order of their names."""

    __slots__ = ("expires_at", "keys", "ttl_s")

    def __init__(self, ttl_s: int, expires_at: float) -> None:
        self.ttl_s = ttl_s
        self.expires_at = expires_at
        self.keys: dict[bytes, None] = {}


class MemoryStore:
    """What all handles share."""

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        revision: int = 1,
        ops_max: int = OPS_MAX,
        request_bytes_max: int = REQUEST_BYTES_MAX,
        quota_bytes: int = QUOTA_BYTES,
        lease_ttl_min_s: int = LEASE_TTL_MIN_S,
        journal: bool = False,
    ) -> None:
        self.clock = clock or SystemClock()
        self.keyspace = Keyspace(revision)
        self.leases: dict[int, Lease] = {}
        self.journal: list[Entry] | None = [] if journal else None
        self.no_space = False
        self.bytes_total = 0
        self.quota_bytes = quota_bytes
        self._ops_max = ops_max
        self._request_bytes_max = request_bytes_max
        self._lease_ttl_min_s = lease_ttl_min_s
        self._listeners: dict[Listener, None] = {}
        self._next_look = math.inf
        self._timer: tuple[asyncio.AbstractEventLoop, asyncio.TimerHandle] | None = None

    @property
    def revision(self) -> int:
        return self.keyspace.revision

    def read(
        self, key: bytes, range_end: bytes, limit: int, revision: int, keys_only: bool, min_mod_revision: int
    ) -> Page:
        self._expire()
        if not key:
            raise TransactionInvalid("the key is empty")
        if revision > self.revision:
            raise TransactionInvalid(f"revision {revision} was asked for, the store is at {self.revision}")
        if 0 < revision < self.keyspace.compacted:
            raise Compacted(self.keyspace.compacted)
        records: Iterable[Record]
        if 0 < revision < self.revision:
            records = list(self.keyspace.find_at(key, range_end, revision))
            total = len(records)
        else:
            records = self.keyspace.find(key, range_end)
            total = self.keyspace.count(key, range_end)
        if min_mod_revision:
            records = (record for record in records if record.mod_revision >= min_mod_revision)
        found = list(islice(records, limit + 1)) if limit > 0 else list(records)
        more = 0 < limit < len(found)
        if more:
            del found[limit:]
        read = _strip(found) if keys_only else tuple(found)
        return Page(read, revision if revision > 0 else self.revision, more, total)

    def commit(self, txn: Txn, writer: str = "") -> TxnResult:
        self._expire()
        self._check_space(txn)
        self._check_form(txn)
        succeeded = all(self._holds(condition) for condition in txn.conditions)
        branch = txn.then if succeeded else txn.orelse
        for op in branch:
            if isinstance(op, Put) and op.lease and op.lease not in self.leases:
                raise LeaseGone(f"lease {op.lease:x} does not exist")
        answers = tuple(self._apply(op) for op in branch)
        self._seal(writer, txn)
        return TxnResult(succeeded, self.revision, answers)

    def grant(self, ttl_s: int, lease: int) -> int:
        self._expire()
        if not 0 < lease < 2**63:
            raise TransactionInvalid(f"{lease} is not a valid lease id")
        if self.no_space:
            raise NoSpace("the store's quota is used up")       # even to a repeat
        if (known := self.leases.get(lease)) is not None:
            return known.ttl_s
        if ttl_s > LEASE_TTL_MAX_S:
            raise TransactionInvalid(f"a lease of {ttl_s} s is too long")
        ttl_s = max(ttl_s, self._lease_ttl_min_s)
        self.leases[lease] = Lease(ttl_s, self.clock.monotonic() + ttl_s)
        self._look_at(self.leases[lease].expires_at)
        return ttl_s

    def keep_alive(self, lease: int) -> int:
        self._expire()
        known = self.leases.get(lease)
        now = self.clock.monotonic()
        if known is not None and known.expires_at <= now:   # etcd lets the renewal wait until the lease is revoked
            self.end_lease(lease)
            known = None
        if known is None:
            raise LeaseGone(f"lease {lease:x} does not exist")
        known.expires_at = now + known.ttl_s
        return known.ttl_s

    def end_lease(self, lease: int, writer: str = "") -> None:
        """Revoke a lease, or lose it early: its keys go in one revision."""
        known = self.leases.pop(lease, None)
        if known is not None:
            for key in sorted(known.keys):
                self.keyspace.delete(key)
            self._seal(writer, None)

    def extend_leases(self, extra_s: float) -> None:
        """What a change of etcd's leader does: every lease starts again, plus one election timeout."""
        now = self.clock.monotonic()
        for lease in self.leases.values():
            lease.expires_at = now + lease.ttl_s + extra_s

    def compact(self, revision: int) -> None:
        self._expire()
        if revision > self.revision:
            raise TransactionInvalid(f"cannot compact at revision {revision}: the store is at {self.revision}")
        if revision > self.keyspace.compacted:
            self.keyspace.compact(revision)

    def defragment(self) -> None:
        """Give back what compaction freed. The alarm stays until `disarm`."""
        self.bytes_total = self.keyspace.bytes_in_use

    def disarm(self) -> None:
        self.no_space = False

    def status(self) -> StoreStatus:
        self._expire()
        return StoreStatus(
            version=VERSION,
            revision=self.revision,
            bytes_total=self.bytes_total,
            bytes_in_use=self.keyspace.bytes_in_use,
            no_space=self.no_space,
            quota_bytes=self.quota_bytes,
            cluster_id=1,
        )

    def _check_space(self, txn: Txn) -> None:
        cost = max(_put_bytes(txn.then), _put_bytes(txn.orelse))
        if cost and self.bytes_total + cost > self.quota_bytes:
            self.no_space = True
        if cost and self.no_space:
            raise NoSpace("the store's quota is used up")

    def _check_form(self, txn: Txn) -> None:
        count = max(len(txn.conditions), len(txn.then), len(txn.orelse))
        if count > self._ops_max:
            raise TransactionTooLarge(f"{count} operations; the store takes {self._ops_max}")
        if not all(part.key for part in (*txn.conditions, *txn.then, *txn.orelse)):
            raise TransactionInvalid("a key is empty")
        writes = _check_branch(txn.then) + _check_branch(txn.orelse)
        size = sum(_op_bytes(op) for op in (*txn.then, *txn.orelse)) + sum(map(_condition_bytes, txn.conditions))
        if writes and size > self._request_bytes_max:
            raise TransactionTooLarge(f"{size:,} bytes; the store takes {self._request_bytes_max:,}")

    def _holds(self, condition: Condition) -> bool:
        compare = _COMPARE[condition.is_]
        records = list(self.keyspace.find(condition.key, condition.range_end))
        if not records:
            return condition.target is not Target.VALUE and compare(_order(_ABSENT, condition))
        return all(compare(_order(record, condition)) for record in records)

    def _apply(self, op: Op) -> tuple[Record, ...]:
        if isinstance(op, Get):
            records = self.keyspace.find(op.key, op.range_end)
            found = tuple(islice(records, op.limit) if op.limit > 0 else records)
            return _strip(found) if op.keys_only else found
        if isinstance(op, Put):
            previous = self.keyspace.put(op.key, op.value, op.lease)
            if previous is not None:
                self._detach(previous)
            if op.lease:
                self.leases[op.lease].keys[op.key] = None
        else:
            for record in self.keyspace.delete(op.key, op.range_end):
                self._detach(record)
        return ()

    def _detach(self, record: Record) -> None:
        if record.lease and (lease := self.leases.get(record.lease)) is not None:
            lease.keys.pop(record.key, None)

    def _seal(self, writer: str, txn: Txn | None) -> None:
        changes = self.keyspace.seal()
        if not changes:
            return
        self.bytes_total = max(self.bytes_total, self.keyspace.bytes_in_use)
        if self.journal is not None:
            self.journal.append(Entry(self.revision, self.clock.monotonic(), writer, txn, changes))
        for listener in tuple(self._listeners):
            listener.offer(self.revision, changes)

    def _expire(self) -> None:
        """Revoke what has expired, if a look is due: each lease at a revision of its own."""
        now = self.clock.monotonic()
        if now < self._next_look:
            return
        due = sorted((lease.expires_at, name) for name, lease in self.leases.items() if lease.expires_at <= now)
        for _, name in due:
            self.end_lease(name)
        self._next_look = math.inf
        if self.leases:
            self._look_at(min(lease.expires_at for lease in self.leases.values()))

    def _look_at(self, when: float) -> None:
        """Look for expired leases at etcd's next look after `when`, be there a request or not."""
        when = math.ceil(when / EXPIRY_PERIOD_S) * EXPIRY_PERIOD_S
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._next_look = min(self._next_look, when)
            return
        if self._timer is not None and self._timer[0] is loop and when >= self._next_look:
            return
        if self._timer is not None:
            self._timer[1].cancel()
        self._next_look = min(self._next_look, when)
        self._timer = loop, loop.call_later(self._next_look - self.clock.monotonic(), self._timed_look)

    def _timed_look(self) -> None:
        self._timer = None
        self._expire()
        if self._timer is None and self._next_look < math.inf:      # the timer was a hair early
            self._look_at(self._next_look)

    def listen(self, listener: Listener) -> None:
        self._expire()
        self._listeners[listener] = None

    def leave(self, listener: Listener) -> None:
        self._listeners.pop(listener, None)


def _strip(records: Iterable[Record]) -> tuple[Record, ...]:
    return tuple(
        Record(record.key, b"", record.create_revision, record.mod_revision, record.version, record.lease)
        for record in records
    )


def _order(record: Record, condition: Condition) -> int:
    """Negative, zero or positive: how what is stored compares with the condition's operand."""
    if condition.target is Target.VALUE:
        assert isinstance(condition.operand, bytes)
        return (record.value > condition.operand) - (record.value < condition.operand)
    assert isinstance(condition.operand, int)
    if condition.target is Target.CREATE:
        stored = record.create_revision
    elif condition.target is Target.MOD:
        stored = record.mod_revision
    elif condition.target is Target.VERSION:
        stored = record.version
    else:
        stored = record.lease
    return stored - condition.operand


def _check_branch(ops: tuple[Op, ...]) -> int:
    """Refuse a key that is put twice, or put and deleted. Returns the number of writes.

    etcd overlooks deletes of everything from a key on (`range_end` of b"\\0"): such a key is put and deleted, in the
    order of the operations, in one revision.
    """
    deletes = [op for op in ops if isinstance(op, Delete)]
    bounded = [delete for delete in deletes if delete.range_end != b"\0"]
    puts: set[bytes] = set()
    for op in ops:
        if isinstance(op, Put):
            if op.key in puts or any(covers(delete.key, delete.range_end, op.key) for delete in bounded):
                raise TransactionInvalid(f"duplicate key {op.key!r} in one transaction")
            puts.add(op.key)
    return len(deletes) + len(puts)


def _put_bytes(ops: tuple[Op, ...]) -> int:
    return sum(OP_OVERHEAD_BYTES + len(op.key) + len(op.value) for op in ops if isinstance(op, Put))


def _op_bytes(op: Op) -> int:
    value = len(op.value) if isinstance(op, Put) else 0
    range_end = b"" if isinstance(op, Put) else op.range_end
    return OP_OVERHEAD_BYTES + len(op.key) + len(range_end) + value


def _condition_bytes(condition: Condition) -> int:
    operand = len(condition.operand) if isinstance(condition.operand, bytes) else 0
    return OP_OVERHEAD_BYTES + len(condition.key) + len(condition.range_end) + operand
