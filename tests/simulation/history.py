"""A cluster's history, folded up revision by revision: who is a member, who stands for election, where each job is.

It reads the journal of a `MemoryStore` and knows the layout of the keys, nothing of the code that wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias, TypeVar

import msgspec

from rota.client.errors import RotaError
from rota.client.model import Level, Results
from rota.client.wire.codec import decode_header
from rota.cluster.ledger.keyspace import Change
from rota.cluster.ledger.ledger import Condition, Record, Target, Txn
from rota.cluster.ledger.memory_store import Entry
from rota.cluster.state.keys import Keys, whole
from rota.cluster.state.records import Awaiting, Claim, FailedRecord, Token, decode

Name = TypeVar("Name", str, bytes)
Job: TypeAlias = tuple[str, int]
"""The bundle as it was enqueued, and the index."""


class Order(msgspec.Struct, kw_only=True):
    """What a client asked for, whom, and what it was told. Times on the store's clock; nodes by their processes."""

    task: str
    queue: str = "q"
    level: Level = "durable"
    delay_s: float = 0.0
    count: int = 1
    asked: dict[str, float] = {}        # process -> since when
    overloads: dict[str, int] = {}      # process -> how often it said that it cannot now
    taken: dict[str, float] = {}        # process -> when it said that it has it
    refused_at: int = 0                 # the store's revision when it was asked that refused for good


class Freeze(NamedTuple):
    """A machine stands still, with everything on it."""

    at: float
    process: str
    until: float = float("inf")


class Place(msgspec.Struct, frozen=True, gc=False):
    """A token where it lies. `node` is "" unless it is a claim; `token` is None if nobody can read it."""

    kind: str                   # "jobs", "scheduled" or "claims"
    key: bytes
    bundle: str
    node: str
    token: Token | None
    create_revision: int
    mod_revision: int
    due_ms: int = 0

    def __str__(self) -> str:
        return self.key.decode(errors="replace")


class Move(msgspec.Struct, frozen=True, gc=False):
    """A job, and where it had to run before and after a revision (one place each, if all is well)."""

    job: Job
    before: tuple[Place, ...]
    after: tuple[Place, ...]


class Step(msgspec.Struct, gc=False):
    """What one revision did."""

    entry: Entry
    changed: list[tuple[Place | None, Place | None]] = []
    moves: list[Move] = []
    results: dict[Job, str] = {}        # status as stored
    failed: dict[Job, FailedRecord] = {}
    unfailed: set[Job] = set()          # failed records that were deleted
    receipts: set[str] = set()          # bundles whose receipt was created
    overwritten: list[bytes] = []       # results or failed records that were there before
    bundles: list[str] = []

    @property
    def revision(self) -> int:
        return self.entry.revision

    def quarantined(self, bundle: str) -> FailedRecord | None:
        """The failed record that stands for all jobs of a bundle that could not be run at all."""
        return next(
            (record for (name, _), record in self.failed.items() if name == bundle and record.reason != "error"), None
        )


class Actor:
    """Who wrote a transaction, by what guards it."""

    def __init__(self, keys: Keys, txn: Txn | None) -> None:
        self.fence = 0
        self.fence_key = b""
        self.members: dict[str, int] = {}
        self.operation = b""        # the bulk operation on whose behalf it is
        self.conditions: dict[bytes, list[Condition]] = {}
        for condition in txn.conditions if txn is not None else ():
            self.conditions.setdefault(condition.key, []).append(condition)
            if condition.target is not Target.CREATE or condition.is_ != "==" or not condition.operand:
                continue
            assert isinstance(condition.operand, int)
            if condition.key.startswith(keys.master):
                self.fence, self.fence_key = condition.operand, condition.key
            elif condition.key.startswith(keys.operations):
                self.operation = condition.key
            elif condition.key.startswith(keys.nodes):
                self.members[condition.key[len(keys.nodes):].decode()] = condition.operand

    def names(self, place: Place, *, target: Target | None = None) -> bool:
        """Whether it was guarded by this very token (its create or its mod revision)."""
        return any(
            condition.is_ == "==" and condition.target is kind and condition.operand == revision
            for condition in self.conditions.get(place.key, ())
            for kind, revision in ((Target.CREATE, place.create_revision), (Target.MOD, place.mod_revision))
            if target is None or kind is target
        )


class World:
    """The state after the last revision that was applied."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.members: dict[str, int] = {}           # node -> create revision
        self.candidates: dict[bytes, int] = {}      # key below master/ -> create revision
        self.bodies: dict[str, frozenset[int]] = {}
        self.tokens: dict[str, dict[bytes, Place]] = {}     # by bundle or piece
        self.where: dict[Job, dict[bytes, Place]] = {}      # only jobs that still have to run
        self._pending: dict[bytes, tuple[Job, ...]] = {}

    def master(self) -> int:
        """The create revision of the elected candidate, 0 if there is none."""
        return min(self.candidates.values(), default=0)

    def apply(self, entry: Entry) -> Step:
        step = Step(entry)
        touched: dict[str, None] = {}
        for change in entry.changes:
            bundle = self._take(change, step)
            if bundle:
                touched[bundle] = None
        step.bundles = list(touched)
        self._move(step)
        return step

    def _take(self, change: Change, step: Step) -> str | None:
        """Apply one change; returns the bundle if it is about a token or a body."""
        keys, record = self.keys, change.event.record
        key, deleted = record.key, change.event.deleted
        if key.startswith((keys.jobs, keys.scheduled, keys.awaiting, keys.claims)):
            return self._take_token(change, step)
        if key.startswith(keys.bodies):
            bundle = key[len(keys.bodies):].decode()
            if deleted:
                self.bodies.pop(bundle, None)
            else:
                self.bodies[bundle] = indexes_of(record.value)
            return bundle
        if key.startswith(keys.nodes):
            _keep(self.members, key[len(keys.nodes):].decode(), record, deleted)
        elif key.startswith(keys.master):
            _keep(self.candidates, key, record, deleted)
        elif key.startswith(keys.results) and not deleted:
            self._take_results(record, change.previous, step)
        elif key.startswith(keys.failed):
            self._take_failed(change, step)
        elif key.startswith(keys.receipts) and not deleted and change.previous is None:
            step.receipts.add(key[len(keys.receipts):].decode())
        return None

    def _take_token(self, change: Change, step: Step) -> str | None:
        record = change.event.record
        name = record.key.rpartition(b"/")[2].decode(errors="replace")
        before = self.tokens.get(name, {}).get(record.key)
        after = None if change.event.deleted else self._place(record)
        if after is None:
            if before is None:
                return None         # a key that rota did not write
            del self.tokens[name][record.key]
            if not self.tokens[name]:
                del self.tokens[name]
        else:
            self.tokens.setdefault(name, {})[record.key] = after
        step.changed.append((before, after))
        return name

    def _place(self, record: Record) -> Place | None:
        keys, key = self.keys, record.key
        kind, node, due = "jobs", "", 0
        token: Token | None = None
        if key.startswith(keys.claims):
            claim = keys.parse_claim(key)
            if claim is None:
                return None
            kind, (node, bundle) = "claims", claim
            token = decode(Claim, record.value)
        elif key.startswith(keys.awaiting):
            awaits = keys.parse_awaits(key)
            if awaits is None:
                return None
            kind, bundle = "awaiting", awaits[1]
            token = decode(Awaiting, record.value)
        elif key.startswith(keys.scheduled):
            scheduled = keys.parse_due(key)
            if scheduled is None:
                return None
            kind, (due, _, bundle) = "scheduled", scheduled
            token = decode(Token, record.value)
        else:
            job = keys.parse_job(key)
            if job is None:
                return None
            bundle = job.bundle
            token = decode(Token, record.value)
        return Place(kind, key, bundle, node, token, record.create_revision, record.mod_revision, due)

    @staticmethod
    def _take_results(record: Record, previous: Record | None, step: Step) -> None:
        results = msgspec.msgpack.decode(record.value, type=Results)
        if previous is not None:
            step.overwritten.append(record.key)
        for entry in results.entries:
            step.results[results.bundle, entry.index] = entry.status

    def _take_failed(self, change: Change, step: Step) -> None:
        record = change.event.record
        bundle, _, index = record.key.rpartition(b"/")[2].decode().rpartition("-")
        job = (bundle, int(index))
        if change.event.deleted:
            step.unfailed.add(job)
            return
        failed = decode(FailedRecord, record.value)
        if failed is not None:
            step.failed[job] = failed
        if change.previous is not None:
            step.overwritten.append(record.key)

    def _move(self, step: Step) -> None:
        """Find out which jobs have to run where now, for the bundles that were touched."""
        gone = [before.key for before, after in step.changed if before is not None and after is None]
        fresh: dict[bytes, tuple[Place, tuple[Job, ...]]] = {}
        for bundle in step.bundles:
            for place in self.tokens.get(bundle, {}).values():
                fresh[place.key] = place, self._jobs_in(place)
        jobs: dict[Job, None] = {}
        for key in [*gone, *fresh]:
            jobs.update(dict.fromkeys(self._pending.get(key, ())))
        for _, some in fresh.values():
            jobs.update(dict.fromkeys(some))
        before = {job: tuple(self.where.get(job, {}).values()) for job in jobs}
        for key in [*gone, *fresh]:
            for job in self._pending.pop(key, ()):
                del self.where[job][key]
        for key, (place, some) in fresh.items():
            self._pending[key] = some
            for job in some:
                self.where.setdefault(job, {})[key] = place
        for job in jobs:
            step.moves.append(Move(job, before[job], tuple(self.where.get(job, {}).values())))
            if not self.where.get(job, True):
                del self.where[job]

    def _jobs_in(self, place: Place) -> tuple[Job, ...]:
        if place.token is None:
            return ()
        done = place.token.done_bits
        bundle = whole(place.bundle)
        return tuple((bundle, i) for i in sorted(self.bodies.get(place.bundle, ())) if not done >> i & 1)


def _keep(table: dict[Name, int], name: Name, record: Record, deleted: bool) -> None:
    if deleted:
        table.pop(name, None)
    else:
        table[name] = record.create_revision


def indexes_of(body: bytes) -> frozenset[int]:
    try:
        return frozenset(decode_header(body)[0].indexes)
    except RotaError:
        return frozenset()


def whereabouts(places: Iterable[Place]) -> str:
    return " and ".join(sorted(str(place) for place in places)) or "nowhere"
