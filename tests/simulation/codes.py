"""Who can run what: nodes whose code differs, as while a deploy goes from node to node, and nodes of different sizes.

    A2  a node is given only what its code has, as far as its record says, and runs it in the mode that its code has

A task that is `def` here may be `async def` there, or not be there at all; and the code of a node may change while it
runs (its runners are started again). Whoever comes last, somebody has all of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec

from rota.client.model import Mode, TaskInfo
from rota.cluster.ledger.ledger import Record
from rota.cluster.ledger.memory_store import Entry
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Claim, Member, decode

from .history import Order
from .plans import CAPACITY, TASKS, TURNS

COMMON = ("m:sync", "m:async", TURNS)
"""What code may lack. (The others are few enough.)"""

TOLD_S = 1.5
"""So long after a change of its code a node may still be given what it has not: it looks once a second, and tells."""


class Code(NamedTuple):
    tasks: dict[str, TaskInfo]
    capacity: dict[Mode, int]

    @property
    def is_whole(self) -> bool:
        return self.tasks.keys() == TASKS.keys() and all(self.capacity[mode] >= CAPACITY[mode] for mode in CAPACITY)


WHOLE = Code(TASKS, CAPACITY)


def code_for(seed: int, number: int, others: Iterable[Code]) -> Code:
    """For a new process. Somebody has to be there who can run everything."""
    if not any(other.is_whole for other in others):
        return WHOLE
    rng = random.Random(f"{seed} code {number}")
    capacity: dict[Mode, int] = {"sync": rng.choice((0, 1, 2, 4)), "async": rng.choice((0, 2, 4, 10))}
    return Code(other_code(rng), capacity)


def other_code(rng: random.Random) -> dict[str, TaskInfo]:
    """A task turned from `def` to `async def`, or not; some are gone."""
    gone = rng.sample(COMMON, rng.choice((0, 0, 1, 2)))
    mode: Mode = rng.choice(("sync", "async"))
    turned = msgspec.structs.replace(TASKS[TURNS], mode=mode)
    return {name: info for name, info in (TASKS | {TURNS: turned}).items() if name not in gone}


class Codes:
    """Judges one revision after the other. `changes`: (at, process) of each change of code."""

    def __init__(
        self, keys: Keys, orders: Mapping[str, Order], changes: Iterable[tuple[float, str]],
        say: Callable[[str, str], None],
    ) -> None:
        self._keys = keys
        self._orders = orders
        self._changes = list(changes)
        self._say = say

    def see(self, entry: Entry, members: Mapping[str, Member]) -> None:
        """`members`: before this revision."""
        for change in entry.changes:
            record = change.event.record
            if change.previous is None and not change.event.deleted and record.key.startswith(self._keys.claims):
                self._check_claim(record, members)
        self._check_own(entry, members)

    def _check_claim(self, record: Record, members: Mapping[str, Member]) -> None:
        claim, parsed = decode(Claim, record.value), self._keys.parse_claim(record.key)
        member = members.get(parsed[0]) if parsed is not None else None
        if claim is None or member is None:
            return
        mode = member.tasks.get(claim.task)         # (not by `Member.mode_of`: that is what is judged)
        if not member.serves(claim.queue) or mode is None or not member.capacity.get(mode):
            self._say("A2", f"{record.key.decode()}, of {claim.task}, is for a node that does not run it")
        elif mode != claim.mode:
            self._say("A2", f"{record.key.decode()}, of {claim.task}, is {claim.mode}, and the node has it otherwise")

    def _check_own(self, entry: Entry, members: Mapping[str, Member]) -> None:
        """A bundle of level `delayed` begins where it is enqueued, unless that node does not run it."""
        made = {change.event.record.key for change in entry.changes if change.previous is None}
        for bundle in (key[len(self._keys.receipts):].decode() for key in made if key.startswith(self._keys.receipts)):
            order, node = self._orders.get(bundle), self._node_of(entry, members)
            if order is None or order.level != "delayed" or node is None or self._has_changed(node, entry.at):
                continue
            member = members[node]
            owned = self._keys.claim(node, bundle) in made
            if member.serves(order.queue) and bool(member.capacity.get(member.tasks.get(order.task, "sync"), 0)) and (
                order.task in member.tasks
            ) and not owned:
                self._say("S5", f"bundle {bundle}, of level delayed, lacked the claim of {node}, which runs it")

    def _has_changed(self, node: str, at: float) -> bool:
        process = node.rpartition("-")[0]
        return any(who == process and 0.0 <= at - when <= TOLD_S for when, who in self._changes)

    @staticmethod
    def _node_of(entry: Entry, members: Mapping[str, Member]) -> str | None:
        return next((node for node in members if node.rpartition("-")[0] == entry.writer), None)
