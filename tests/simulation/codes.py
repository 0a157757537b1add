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

SLOW_S = 5.0
"""So much longer a claim that the node writes itself may be under way to a slow store, with the mode it began in."""


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
                self._check_claim(entry, record, members)
        self._check_own(entry, members)

    def _check_claim(self, entry: Entry, record: Record, members: Mapping[str, Member]) -> None:
        claim, parsed = decode(Claim, record.value), self._keys.parse_claim(record.key)
        if claim is None or parsed is None or (member := members.get(parsed[0])) is None:
            return
        mode = member.tasks.get(claim.task)         # (not by `Member.mode_of`: that is what is judged)
        if not member.serves(claim.queue) or mode is None or not member.capacity.get(mode):
            self._say("A2", f"{record.key.decode()}, of {claim.task}, is for a node that does not run it")
        elif mode != claim.mode and not (
            parsed[0] in self._nodes_of(entry, members) and self._has_changed(parsed[0], entry.at, TOLD_S + SLOW_S)
        ):
            self._say("A2", f"{record.key.decode()}, of {claim.task}, is {claim.mode}, and the node has it otherwise")

    def _check_own(self, entry: Entry, members: Mapping[str, Member]) -> None:
        """A bundle of level `delayed` begins where it is enqueued, unless that node does not run it."""
        made = {change.event.record.key for change in entry.changes if change.previous is None}
        for bundle in (key[len(self._keys.receipts):].decode() for key in made if key.startswith(self._keys.receipts)):
            order = self._orders.get(bundle)
            nodes = [node for node in self._nodes_of(entry, members) if not self._has_changed(node, entry.at)]
            owned = any(self._keys.claim(node, bundle) in made for node in nodes)
            if order is None or order.level != "delayed" or owned:
                continue
            for node in nodes[-1:]:
                member = members[node]
                if member.serves(order.queue) and order.task in member.tasks and (
                    member.capacity.get(member.tasks[order.task], 0)
                ):
                    self._say("S5", f"bundle {bundle}, of level delayed, lacked the claim of {node}, which runs it")

    def _has_changed(self, node: str, at: float, within_s: float = TOLD_S) -> bool:
        process = node.rpartition("-")[0]
        return any(who == process and 0.0 <= at - when <= within_s for when, who in self._changes)

    @staticmethod
    def _nodes_of(entry: Entry, members: Mapping[str, Member]) -> list[str]:
        """What the process that wrote it is called: by two names, while the lease of its last identity runs out."""
        return [node for node in members if node.rpartition("-")[0] == entry.writer]
