"""The cluster at a glance: put together from what a node knows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from rota.client.wire.views import QueueView

from ..ledger.ledger import StoreStatus
from ..state.directory import Directory
from .depths import Depth
from .hour import Minute, merged
from .records import Happened, NodeSeen


class Known(Protocol):
    def last(self, event: str, node: str = "") -> Happened | None: ...
    def newest(self, limit: int = ...) -> list[Happened]: ...


class NodeOverview(msgspec.Struct, frozen=True, omit_defaults=True):
    """A member. `running` and rates are None where the node has not said them (yet)."""

    node: str
    address: str
    state: str
    master: bool
    capacity: dict[str, int]
    python: str
    version: str
    since: float
    tasks: int
    queues: list[str]
    running: int | None = None
    enqueued_per_s: float | None = None
    ended_per_s: float | None = None


class Totals(msgspec.Struct, frozen=True, omit_defaults=True):
    """Jobs by where they are, as they were counted at a moment. `at_least`: there may be more."""

    at: float
    waiting: int
    claimed: int
    scheduled: int
    failed: int
    oldest_s: float | None
    at_least: bool
    awaiting: int = 0


class Overview(msgspec.Struct, frozen=True, omit_defaults=True):
    """`master_since` is None where the election is older than the history. `hour` has 60 minutes, of all nodes whose
    part is here; `missing` names the others. `totals` is None before the first count; `queues` are the ten that have
    the most waiting, as they were counted."""

    cluster: str
    at: float
    master: str
    master_since: float | None
    last_takeover: Happened | None
    nodes: list[NodeOverview]
    hour: list[Minute]
    missing: list[str]
    totals: Totals | None
    history: list[Happened]
    queues: list[QueueView] = []
    store_bytes: int | None = None
    store_in_use_bytes: int | None = None
    store_quota_bytes: int | None = None


HISTORY = 20
QUEUES = 10


def overview(
    cluster: str, directory: Directory, parts: Mapping[str, NodeSeen], past: Mapping[str, NodeSeen],
    known: Known, depth: Depth | None, store: StoreStatus | None, wall_s: float,
) -> Overview:
    members, master = directory.members, directory.master
    there = {part.process for part in parts.values()}
    hours = [part.hour for part in parts.values()]
    hours += [part.hour for part in past.values() if part.process not in there]
    elected = known.last("became_master", master) if master else None
    return Overview(
        cluster, round(wall_s, 3), master, elected.at if elected is not None else None, known.last("took_over"),
        [_node(node, directory, parts.get(node)) for node in sorted(members)],
        merged(hours, wall_s), sorted(members.keys() - parts.keys()),
        _totals(depth), known.newest(HISTORY), _deepest(depth),
        store.bytes_total if store is not None else None, store.bytes_in_use if store is not None else None,
        store.quota_bytes if store is not None else None,
    )


def _node(node: str, directory: Directory, part: NodeSeen | None) -> NodeOverview:
    member = directory.members[node]
    return NodeOverview(
        node, member.address, member.state, node == directory.master, member.capacity, member.python, member.version,
        member.since, len(member.tasks), member.queues, part.running if part is not None else None,
        part.enqueued_per_s if part is not None else None, part.ended_per_s if part is not None else None,
    )


def _deepest(depth: Depth | None) -> list[QueueView]:
    rows = depth.rows if depth is not None else []
    return sorted(rows, key=lambda row: (-row.waiting, -row.claimed, row.queue))[:QUEUES]


def _totals(depth: Depth | None) -> Totals | None:
    if depth is None:
        return None
    return Totals(
        depth.at, depth.total("waiting"), depth.total("claimed"), depth.total("scheduled"), depth.total("failed"),
        depth.oldest_s, depth.at_least, depth.total("awaiting"),
    )
