"""Rows of an outbox: how an enqueue becomes one, and a bundle again.

A row holds the call as `using(...).enqueue` would have sent it, and the name of its job. It is signed by who wrote it,
where that process has a key: so who can write to the table, and no more, cannot run code on the nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import NamedTuple, Protocol

import msgspec
from msgspec.structs import replace

from rota.client.api.coalesce import OpenBundle
from rota.client.calls.order import Order, Route
from rota.client.errors import ConfigError, InvalidJob, SignatureRefused
from rota.client.ids import Names, job_id
from rota.client.model import NO_OPTIONS, NO_TERMS, UNREADABLE, Codec, Enqueue, Mode, Options, Terms
from rota.client.options import checks as options
from rota.client.options.terms import EXPIRES_S_MIN
from rota.client.settings.config import client_config
from rota.client.wire.codec import PYTHON
from rota.client.wire.keyring import Keyring, Seal

TABLE = "rota_outbox"
"""What the table is called, and the channel of Postgres on which its relay is woken."""

ERROR_CHARS_MAX = 1_000


class Packed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is enqueued, as a row holds it."""

    task: str
    queue: str
    payload: bytes
    codec: Codec = "pickle"
    mode: Mode | None = None
    priority: int = 0
    delay_s: float = 0.0
    options: Options = NO_OPTIONS
    key: str = ""
    terms: Terms | None = None
    python: str = ""            # of who wrote it, where that matters
    code: bytes = b""
    function: str = ""
    v: int = 1


class NewRow(NamedTuple):
    """A row to insert: the columns of that name."""

    bundle: str
    task: str
    queue: str
    job: bytes
    stamp: str
    created_ms: int


class Row(NamedTuple):
    """A row as the relay reads it. `moving_ms`: since when it may have been moved; None: certainly not."""

    id: int
    bundle: str
    job: bytes
    stamp: str
    created_ms: int
    moving_ms: int | None


class Aside(NamedTuple):
    """A row that could not be moved, for people."""

    id: int
    job_id: str
    task: str
    queue: str
    created_ms: int
    error: str
    retried: bool               # whether it is tried again by itself


class Counts(NamedTuple):
    waiting: int
    aside: int
    oldest_ms: int | None       # when the oldest row that waits was written


class Rows(Protocol):
    """A table, as a relay sees it. Each call is a transaction of its own; they are made on another thread than the
    event loop's, one at a time."""

    def fetch(self, limit: int, now_ms: int) -> list[Row]:
        """The oldest rows that are to be moved, in their order."""
        ...

    def begin(self, ids: Sequence[int], now_ms: int) -> None:
        """They may have been moved from now on. Says nothing of rows of which that was said before."""
        ...

    def withdraw(self, ids: Sequence[int]) -> None:
        """They certainly have not been moved."""
        ...

    def delete(self, ids: Sequence[int]) -> None: ...

    def set_aside(self, id_: int, error: str, retry_ms: int | None) -> None:
        """Leave one out from now on, until `retry_ms` if that is said."""
        ...

    def counts(self) -> Counts: ...

    def aside(self, limit: int) -> list[Aside]: ...

    def again(self, ids: Sequence[int] | None) -> int:
        """Rows that were set aside (None: all of them) are to be moved after all; returns how many."""
        ...

    def wait(self, timeout_s: float) -> bool:
        """Return when somebody says that a row has come, or after so many seconds: whether somebody did."""
        ...

    def close(self) -> None: ...


_names = Names()
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Packed).decode


def row_of(order: Order, keyring: Keyring) -> NewRow:
    """The row that stands for an enqueue. Raises `InvalidJob` for what an outbox cannot do."""
    route = order.route
    if route.bundle:
        raise InvalidJob("a row of an outbox holds its arguments: they cannot lie in an object store")
    if route.idempotency:
        raise InvalidJob(
            "an idempotency_key names a job in its cluster, and a row of an outbox names its own: give a unique_key, "
            "or let a unique column of your table say that it is there already"
        )
    by_value = bool(route.function) or order.codec == "cloudpickle"
    packed = Packed(
        route.task, route.queue, order.payload, order.codec, route.mode, route.priority, route.delay_s, route.options,
        route.key, route.terms, PYTHON if by_value else "", order.code, route.function,
    )
    bundle, job = _names.next(), _encode(packed)
    return NewRow(bundle, route.task, route.queue, job, stamp_of(keyring, bundle, job), now_ms())


def stamp_of(keyring: Keyring, bundle: str, job: bytes) -> str:
    return keyring.stamp(_facts(bundle, job), "")


def _facts(bundle: str, job: bytes) -> tuple[object, ...]:
    return ("outbox", bundle, job)


def opened(row: Row, keyring: Keyring, *, unsigned: bool) -> Packed:
    """What a row asks for. `keyring`: the cluster's; without a key, nothing is signed. Raises `SignatureRefused`,
    `InvalidJob`."""
    if not (unsigned and not row.stamp) and not keyring.is_stamp(row.stamp, _facts(row.bundle, row.job), ""):
        raise SignatureRefused(
            f"row {row.id} is {'signed with a key that is not known here' if row.stamp else 'not signed'}: give the "
            "process that enqueues the cluster's key file (ROTA_KEY_FILE), or have the relay trust everybody who can "
            "write to this table (rota outbox run --unsigned)"
        )
    try:
        packed = _decode(row.job)
    except UNREADABLE as error:
        raise InvalidJob(f"row {row.id} cannot be read: {error}") from None
    if packed.code and packed.python != PYTHON:
        raise InvalidJob(
            f"row {row.id} brings code of Python {packed.python}, and this relay is Python {PYTHON}: run it with that "
            "one, or let the nodes import the task"
        )
    return packed


def route_of(packed: Packed) -> Route:
    return Route(
        packed.task, packed.queue, packed.mode, packed.priority, packed.delay_s, packed.options, packed.function,
        key=packed.key,
    )


def bundle_of(row: Row, packed: Packed, route: Route, seal: Seal, remember_s: float) -> Enqueue:
    """The bundle of a row, signed. How long it has waited as a row counts: for its delay, and for its end."""
    now_s = options.now_s()
    waited_s = max(0.0, now_s - row.created_ms / 1000)
    terms = packed.terms or NO_TERMS
    expires_s = max(EXPIRES_S_MIN, terms.expires_s - waited_s) if terms.expires_s else 0.0
    terms = replace(terms, expires_s=expires_s, remember_s=max(terms.remember_s, remember_s))
    made = OpenBundle(route._replace(terms=terms), 0.0)
    made.add(packed.payload, packed.codec)
    return made.close(row.bundle, seal, now_s, waited_s, python=packed.python or PYTHON)


def aside_of(id_: int, bundle: str, task: str, queue: str, created_ms: int, error: str, retry_ms: int | None) -> Aside:
    return Aside(id_, job_id(bundle, 0), task, queue, created_ms, error, retry_ms is not None)


def now_ms() -> int:
    return int(options.now_s() * 1000)


def checked_table(name: str) -> str:
    """Raises `ConfigError`."""
    if not (name.isidentifier() and name.isascii() and len(name) <= 60):
        raise ConfigError(f"{name!r:.80} is not a valid name of a table: letters, digits and _ (at most 60)")
    return name


class Signer:
    """What rows are signed with: the key that was given, else what a client of this process would sign with. Raises
    `ConfigError`."""

    def __init__(self, key: Keyring | str | PathLike[str] | None) -> None:
        self._key = key
        self._given: Keyring | None = None

    @property
    def keyring(self) -> Keyring:
        if self._given is not None:
            return self._given
        config = client_config(key=self._key)
        if config.local is None:
            self._given = config.keyring
            return self._given
        published = next(filter(None, map(config.local.secrets, config.urls)), None)    # by a node that may start anew
        return config.keyring if published is None else published.keyring
