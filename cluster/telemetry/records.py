"""What nodes write below `seen/`, for people who look. Reading is total: what is no such record is None.

    seen/history/<ms>-<node>-<number>   something that happened to the cluster; the newest are kept
    seen/nodes/<node>                   a node's last hour, on its lease; written often while somebody looks
    seen/asked                          who looks writes this, now and then
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..state.keys import Keys
from .hour import Minute


class Happened(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event of one node, with the time on that node's clock. `event` is its stable name, `fields` its fields."""

    at: float
    node: str
    event: str
    fields: dict[str, Any] = {}


class NodeSeen(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node says of itself. `process` stays the same where a process becomes a new identity: what it
    has counted before goes on."""

    at: float
    process: str
    running: int
    hour: list[Minute]
    enqueued_per_s: float = 0.0
    ended_per_s: float = 0.0


_happened = msgspec.json.Decoder(Happened).decode
_seen = msgspec.json.Decoder(NodeSeen).decode


def happened_in(value: bytes) -> Happened | None:
    try:
        return _happened(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def node_seen_in(value: bytes) -> NodeSeen | None:
    try:
        return _seen(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def history_key(keys: Keys, at: float, node: str, number: int) -> bytes:
    return keys.seen_history + f"{int(at * 1000):016d}-{node}-{number:08d}".encode()
