"""The law of slots: no job waits for more than a second while a node that serves its queue has a free slot for it, and
nothing forbids that it runs there. (Rule L4; decision 0014.)

What forbids it: a pause, a limit, a serial queue's order, a key that the node does not have; what was lost while it ran
is given to nodes that have nothing else, and for a while has such a node for itself. A job waits in its queue, or under
a node that has not begun it. A node's slots of one kind may be kept for a job that takes more of them than are free.

A claim that somebody has written over, so that nobody can read it, still takes what it took (slots, its share of a
limit): its node has read it before, and goes on with it, and the master counts on what it knew. So it is until the node
writes it anew, or it is gone. (Of what has not begun under it nothing is said here: rule K4 judges it.)
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from rota.client.model import Mode
from rota.cluster.state.keys import Keys, whole
from rota.cluster.state.records import Claim, Member, Token

from .history import indexes_of
from .plans import SERIAL
from .scripted import Run

Free: TypeAlias = list[tuple[str, Member, Mode, int]]
Limited: TypeAlias = Callable[[Token], Iterator[tuple[tuple[str, ...], int | None]]]


class Held(NamedTuple):
    node: str
    claim: Claim
    revision: int           # that made the claim


class Slots:
    """What waits at this moment, and need not. Fed with what the runners say."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._indexes: dict[str, frozenset[int]] = {}       # of the jobs in a body, by the name of the bundle or piece
        self._begun: dict[tuple[str, int], set[int]] = {}   # (bundle, claim) -> jobs that were started under it
        self._unclaimed: dict[tuple[str, Mode], int] = {}   # what a node runs that no claim shows

    def stored(self, key: bytes, body: bytes | None) -> None:
        """None: it is deleted."""
        name = key[len(self._keys.bodies):].decode()
        if body is None:
            self._indexes.pop(name, None)
        else:
            self._indexes[name] = indexes_of(body)

    def take(self, run: Run) -> None:
        if run.fence:
            if run.what == "start":
                bundle, _, index = run.job.partition("/")
                self._begun.setdefault((bundle, run.fence), set()).add(int(index))
            return
        change = 1 if run.what == "start" else -1
        self._unclaimed[run.node, run.mode] = self._unclaimed.get((run.node, run.mode), 0) + change

    def waiting(
        self, members: Mapping[str, Member], waiting: Mapping[bytes, Token], claims: Mapping[bytes, Held],
        unreadable: Mapping[bytes, Held], serial_head: bytes, paused: Container[str], limits: Limited, wall_ms: float,
    ) -> dict[bytes, str]:
        """By the token's key: where there is a slot for it. `unreadable`: claims that were written over, as they were
        before."""
        taken = {**claims, **unreadable}
        free = self._free(members, taken)
        free = [slot for slot in free if not _is_kept(slot, waiting)]
        if not free:
            return {}
        counts: dict[tuple[str, ...], int] = {}
        for held in taken.values():
            for what, _ in limits(held.claim):
                counts[what] = counts.get(what, 0) + held.claim.pending
        busy = {held.node for held in taken.values()}
        apart = {held.node for held in taken.values() if held.claim.lost}
        found: dict[bytes, str] = {}
        for key, token in waiting.items():
            if token.queue in paused or any(
                limit is not None and counts.get(what, 0) >= limit for what, limit in limits(token)
            ):
                continue
            if token.queue == SERIAL and (key != serial_head or token.blocked or token.not_before > wall_ms):
                continue
            node = _slot_for(token, free, busy if token.lost else apart)
            if node:
                found[key] = f"{key.decode()} waits, and {node} has a free slot"
        for key, held in claims.items():
            if held.node in members and held.claim.fence and self._not_begun(key, held):    # (not its own)
                node = _slot_for(held.claim, free, (busy if held.claim.lost else apart) - {held.node})
                if node:
                    found[key] = f"{key.decode()} is not begun there, and {node} has a free slot"
        return found

    def starved(
        self, members: Mapping[str, Member], waiting: Mapping[bytes, Token], claims: Mapping[bytes, Held],
        paused: Container[str], limits: Limited,
    ) -> dict[bytes, str]:
        """Likewise, of queues of which nothing is claimed: the first of each, where there is a spare slot. (Left out:
        what has limits, or was lost while it ran.)"""
        running = {held.claim.queue for held in claims.values()} | {SERIAL}
        spare = self._free(members, claims, spare=True)
        spare = [slot for slot in spare if not _is_kept(slot, waiting)]
        apart = {held.node for held in claims.values() if held.claim.lost}
        found: dict[bytes, str] = {}
        for key, token in sorted(waiting.items()) if spare else ():
            if token.queue in running or token.queue in paused or token.lost or any(
                limit is not None for _, limit in limits(token)
            ):
                continue
            node = _slot_for(token, spare, apart)
            if node:
                running.add(token.queue)
                found[self._keys.queue_jobs(token.queue)] = f"{key.decode()} waits, and {node} has a spare slot"
        return found

    def _free(self, members: Mapping[str, Member], claims: Mapping[bytes, Held], *, spare: bool = False) -> Free:
        used = dict(self._unclaimed)
        for held in claims.values():
            place = (held.node, held.claim.mode)
            used[place] = used.get(place, 0) + held.claim.pending * held.claim.weight
            spare = spare and held.claim.weight == 1
        return [
            (node, member, mode, slots - used.get((node, mode), 0))
            for node, member in members.items() if member.state == "active"
            for mode in ("sync", "async") if (slots := member.capacity.get(mode, 0))
            and slots + spare * member.spare.get(mode, 0) > used.get((node, mode), 0)
        ]

    def _not_begun(self, key: bytes, held: Held) -> bool:
        name, done = key.rpartition(b"/")[2].decode(), held.claim.done_bits
        begun = self._begun.get((whole(name), held.revision), ())
        return any(not done >> index & 1 and index not in begun for index in self._indexes.get(name, ()))


def _is_kept(slot: tuple[str, Member, Mode, int], waiting: Mapping[bytes, Token]) -> bool:
    """What is heavy waits until so much is free on a node, and others with it. (Where so much is free, it need not.)"""
    _, member, mode, free = slot
    return any(
        token.weight > max(1, free) and member.serves(token.queue) and member.mode_of(token) == mode
        for token in waiting.values()
    )


def _slot_for(token: Token, free: Free, without: Container[str]) -> str:
    for node, member, mode, _ in free:
        if node not in without and member.serves(token.queue) and member.mode_of(token) == mode and (
            member.keys is not None and member.can_verify(token.signed)     # (one of the release before may have it)
        ):
            return node
    return ""
