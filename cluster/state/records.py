"""The public records below `/rota/<cluster>/`: small JSON, one struct each. Pure.

A **token** stands for a bundle and moves from state to state (`jobs/`, `scheduled/`, `claims/`); it is in exactly one
place. A **claim** is a token under a node, with the fence of the master that put it there.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from rota.client.model import Mode, OnOrphan

SCHEMA = 1


def schema() -> int:
    """The number that every record carries. A default that is made anew is written even where defaults are not."""
    return SCHEMA


class Token(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """`count` jobs lie in the body; `done` is the bitmap (hex, bit i = index i of the bundle as enqueued) of those that
    need no further run. `orphanings` counts lost nodes, `lost` those that were lost while this suspect was started."""

    task: str
    queue: str
    priority: int
    order: int
    count: int
    mode: Mode
    at: int                     # ms since 1970 of the enqueue, by the taking node's clock
    attempt: int = 1
    done: str = ""
    orphanings: int = 0
    lost: int = 0
    not_before: int = 0         # ms since 1970
    python: str = ""
    function: str = ""
    key: str = ""               # what its task's limit per key is counted by
    blocked: bool = False       # in a serial queue: it failed for good, and its queue waits for a person
    error: str = ""             # of its last attempt, one line
    signed: str | None = None   # the mark of the key it is signed with (`id#fingerprint`), "": unsigned, None: not said
    v: int = msgspec.field(default_factory=schema)

    @property
    def done_bits(self) -> int:
        return int(self.done, 16) if self.done else 0

    @property
    def pending(self) -> int:
        return self.count - self.done_bits.bit_count()

    @property
    def suspect(self) -> bool:
        """Its node was lost once: it is run in a bundle of one, and its start is recorded before it happens."""
        return self.orphanings > 0


class Claim(Token, frozen=True, omit_defaults=True, gc=False):
    """A token under a node. `fence` is the create revision of the claiming master's election key."""

    fence: int = 0
    started: bool = False
    serial: bool = False        # of a serial queue: it retries at its place
    back: int = 0               # jobs that the node gave back in pieces, because they run slowly; part of `done`


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node's lease-bound record. It changes only with its state, never with load."""

    address: str
    queues: list[str]
    tasks: dict[str, Mode]
    capacity: dict[str, int]
    python: str
    version: str
    since: float
    state: str = "active"       # or "draining"
    functions: bool = False     # runs code shipped by value
    keys: list[str] | None = None   # the marks of its signing keys; [] takes what is unsigned; None: not said
    v: int = msgspec.field(default_factory=schema)

    def can_verify(self, signed: str | None) -> bool:
        """Whether it has the key of a token (`Token.signed`). An id without a fingerprint fits every key of that id;
        where one side says nothing (it is of the release before), the node finds out."""
        if signed is None or self.keys is None:
            return True
        if not signed:
            return not self.keys
        return signed in self.keys or signed in [mark.partition("#")[0] for mark in self.keys]


class TaskRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task that some node has registered; stays when its nodes are away."""

    mode: Mode
    queue: str = "default"
    max_concurrency: int | None = None          # jobs at a time in the whole cluster
    max_per_key: int | None = None              # of them, with equal keys
    on_orphan: OnOrphan = "requeue"             # what becomes of a job whose node was lost while it may have run
    requeue_delay_s: float = 0.0                # how long it waits then
    v: int = msgspec.field(default_factory=schema)


class QueueRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Settings of a queue. A queue without any has no record."""

    paused: bool = False
    serial: bool = False                        # one at a time, in order; a failing job blocks the queue
    max_concurrency: int | None = None
    v: int = msgspec.field(default_factory=schema)


class FailedRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job in the failed set. Its body and traceback lie below `/rota-data/`."""

    id: str
    task: str
    queue: str
    error: str
    attempts: int
    node: str
    at: float
    reason: str = "error"       # or "orphaned", "unreadable", "bad signature", "body missing"
    v: int = msgspec.field(default_factory=schema)


class FinishedRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Jobs of one bundle that ended well, where their task or enqueue says `keep_finished`. Their body lies below
    `/rota-data/`; both go when their lease ends."""

    bundle: str
    indexes: list[int]
    task: str
    queue: str
    attempts: int
    node: str
    at: float
    v: int = msgspec.field(default_factory=schema)


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """The private part of a failed job (MessagePack below `/rota-data/`): enough to look at it and to run it again."""

    body: bytes
    traceback: str
    token: bytes
    v: int = msgspec.field(default_factory=schema)


class ReceiptRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """An enqueue happened. `digest` is that of the body, so that a repeat is told from a collision."""

    digest: str
    order: int
    priority: int = 0
    v: int = msgspec.field(default_factory=schema)


_T = TypeVar("_T")
_encoder = msgspec.json.Encoder()
_decoders: dict[type, msgspec.json.Decoder[Any]] = {}


def encode(record: msgspec.Struct) -> bytes:
    return _encoder.encode(record)


def decode(kind: type[_T], value: bytes) -> _T | None:
    """None for bytes that are no such record: garbage, or a schema from after the next release."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        record: _T = decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return record


def bits(indexes: list[int]) -> int:
    total = 0
    for index in indexes:
        total |= 1 << index
    return total


def hex_bits(done: int) -> str:
    return f"{done:x}" if done else ""


_TOKEN_FIELDS = Token.__struct_fields__


def claim_of(token: Token, fence: int, *, serial: bool = False) -> Claim:
    fields: list[Any] = [getattr(token, name) for name in _TOKEN_FIELDS]
    return Claim(*fields, fence, False, serial)  # type: ignore[call-arg]      # (mypy counts a starred list as any number)


def token_of(claim: Claim) -> Token:
    """The token inside a claim, as it goes back to its place."""
    return Token(*[getattr(claim, name) for name in _TOKEN_FIELDS])
