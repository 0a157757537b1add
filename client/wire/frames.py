"""Frames between a client and a node: MessagePack in binary WebSocket messages on `/v1/ws`.

Many requests are in flight on one connection; `corr` pairs an answer with its request. The node speaks first (`Hello`).
Frames are arrays, their first item the tag: fields may be added at the end, with defaults, and are never renumbered.
"""

from __future__ import annotations

import msgspec

from .. import errors
from ..errors import ProtocolMismatch, RotaError
from ..model import BUNDLE_BYTES_MAX, HEADER_SCHEMA, JOBS_PER_BUNDLE, Enqueue, Mode, Receipt
from .views import EventsPage

PROTOCOL = 1
PROTOCOL_HEADER = "Rota-Protocol"
"""The client says its version in the handshake, the node in its Hello: either may be the newer one."""

RESULTS_HEADER = "Rota-Results"
"""The newest schema of `Results` that a client reads; who says nothing reads the first."""

PATH = "/v1/ws"
FRAME_BYTES_MAX = 4 * 1024 * 1024
IN_FLIGHT_MAX = 64
"""Requests that a node works on at once for one connection; it reads no further ones until some are answered."""

FOLLOWED_PER_FRAME_MAX = 2_000

CLIENT_FRAME_BYTES = 1024 * 1024
"""What a client puts into one frame: far below the limit, so that one bulk enqueue does not hold up all others."""


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    frame_bytes_max: int = FRAME_BYTES_MAX
    jobs_per_bundle_max: int = JOBS_PER_BUNDLE     # (which a node of the release before does not say)
    bundle_bytes_max: int = BUNDLE_BYTES_MAX
    in_flight_max: int = IN_FLIGHT_MAX
    header_schema_max: int = HEADER_SCHEMA          # (nor this)


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error on its way: the name of its class in `rota.client.errors`, its text, its scalar attributes."""

    kind: str
    message: str
    facts: dict[str, str | int | float] = {}


class _Frame(msgspec.Struct, array_like=True, gc=False):
    """Not frozen: whoever sends a request sets its `corr`, anew for each connection it goes out on."""


# node -> client


class Hello(_Frame, tag=1):
    version: int
    cluster: str
    node: str
    key_ids: list[str]
    limits: Limits = Limits()
    pushes_events: bool = False     # knows of WatchRequest


class EnqueueReply(_Frame, tag=2):
    """One receipt a bundle, in the order asked; None where `refusals` says why."""

    corr: int
    receipts: list[Receipt | None]
    refusals: dict[int, Refusal] = {}


class Done(_Frame, tag=3):
    """Carried out. After a FollowRequest, `unknown` are the bundles that left no trace."""

    corr: int
    unknown: list[str] = []


class TaskModeReply(_Frame, tag=4):
    corr: int
    mode: Mode | None


class ResultPush(_Frame, tag=5):
    """Pairs of a bundle and its encoded, signed `Results`; b"" for those: the bundle has ended, and what was not pushed
    before is not kept."""

    results: list[tuple[str, bytes]]


class ErrorFrame(_Frame, tag=6):
    """The request `corr` as a whole was refused."""

    corr: int
    refusal: Refusal


class EventsPush(_Frame, tag=7):
    """News of the job that the WatchRequest `corr` named; after the page that says that it is over, nothing comes."""

    corr: int
    page: EventsPage


# client -> node


class EnqueueRequest(_Frame, tag=17):
    """Store bundles. `seen_revision` is the newest revision of the store that this client knows of, so that what it
    enqueues later is ordered later, whichever node takes it."""

    corr: int
    seen_revision: int
    bundles: list[Enqueue]


class FunctionRequest(_Frame, tag=18):
    corr: int
    digest: str
    blob: bytes


class FollowRequest(_Frame, tag=19):
    """Push the results of these bundles (of one session), stored and future ones. Those that are known already come
    before the answer."""

    corr: int
    session: str
    bundles: list[str]


class Unfollow(_Frame, tag=20):
    """Unanswered."""

    bundles: list[str]


class TaskModeRequest(_Frame, tag=21):
    corr: int
    task: str


class WatchRequest(_Frame, tag=22):
    """Push what happens to a job, from behind `after` on (`next` of a page; "": from where it is now). Answered by
    `EventsPush`es, or an `ErrorFrame`, which ends it. Only to a node whose Hello says that it knows."""

    corr: int
    job: str
    after: str = ""


class Unwatch(_Frame, tag=23):
    """Unanswered; what is on its way may still come."""

    corr: int


FromNode = Hello | EnqueueReply | Done | TaskModeReply | ResultPush | ErrorFrame | EventsPush
FromClient = (
    EnqueueRequest | FunctionRequest | FollowRequest | Unfollow | TaskModeRequest | WatchRequest | Unwatch
)
Request = EnqueueRequest | FunctionRequest | FollowRequest | TaskModeRequest
Reply = EnqueueReply | Done | TaskModeReply | ErrorFrame

encode = msgspec.msgpack.Encoder().encode
decode_from_node = msgspec.msgpack.Decoder(FromNode).decode
decode_from_client = msgspec.msgpack.Decoder(FromClient).decode

INTERNAL = "Internal"
"""The kind of an error that the node did not expect: whether anything was stored is unknown."""

_KINDS: dict[str, type[RotaError]] = {
    name: kind for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, RotaError) and not issubclass(kind, errors.LedgerError)
}


class NodeFault(RotaError):
    """The node had an error it did not expect. Its log says more; whether anything was stored is unknown."""


def refusal(error: BaseException) -> Refusal:
    """An error as it travels. What is not meant for a client travels without its text."""
    kind = type(error).__name__
    if _KINDS.get(kind) is not type(error):
        return Refusal(INTERNAL, "the node had an unexpected error; its log says more")
    facts = {
        name: int(value) if isinstance(value, bool) else value      # MessagePack tells them apart
        for name, value in vars(error).items() if isinstance(value, str | int | float)
    }
    return Refusal(kind, str(error), facts)


def error_of(refusal: Refusal) -> RotaError:
    """The error that a refusal stands for. Only classes of rota's own tree are ever rebuilt."""
    kind = _KINDS.get(refusal.kind, NodeFault)
    error = kind.__new__(kind)
    error.args = (refusal.message,)
    vars(error).update(refusal.facts)
    return error


def check_version(version: int, who: str) -> None:
    """Raise `ProtocolMismatch` unless both ends speak the same version."""
    if version != PROTOCOL:
        older = "this client" if version > PROTOCOL else who
        raise ProtocolMismatch(f"{who} speaks protocol {version}, this client {PROTOCOL}: upgrade {older}")
