"""What the master knows of claims: who holds which bundle, what was given out and is not seen yet, what has just ended.

It is fed by the events of the watch; `count` hears of every job more or less that is claimed.
"""

from __future__ import annotations

from collections.abc import Callable

from ...ledger.ledger import Event, Record
from ...state.keys import Keys
from ...state.records import Member, claim_in, decode
from ...state.throughput import SLICE_S
from .members import NOBODY, Assignment, NodeLoad
from .paces import Paces
from .rooms import Gains


class Claims:
    """`nodes` are the members by name, `gone` nodes that are none any more: their claims count until they are taken
    over."""

    def __init__(
        self, keys: Keys, paces: Paces, count: Callable[[Assignment, int], None], not_ours: Callable[[Record], None]
    ) -> None:
        self._keys = keys
        self._paces = paces
        self._count = count
        self._not_ours = not_ours
        self.gains = Gains()
        self.nodes: dict[str, NodeLoad] = {}
        self.gone: dict[str, NodeLoad] = {}
        self._ended: dict[str, tuple[NodeLoad, Assignment]] = {}    # bundle -> its claim that ended at `_ended_at`
        self._ended_at = 0
        self._doubtful: list[tuple[int, str, str, Assignment]] = []  # (revision, node, bundle, reservation): unsure

    def node(self, name: str) -> NodeLoad | None:
        """A member's, or that of a node whose claims have not been taken over yet."""
        return self.nodes.get(name) or self.gone.get(name)

    def see_node(self, event: Event) -> str | None:
        """Returns the name of a node that is gone."""
        record = event.record
        name = self._keys.parse_node(record.key)
        if name is None:
            self._not_ours(record)
            return None
        if event.deleted or not record.lease:       # a member lives by its lease: without one there is none
            if not event.deleted:
                self._not_ours(record)
            node = self.nodes.pop(name, None)
            if node is None:
                return None
            if node.held:
                self.gone[name] = node
            return name
        member = decode(Member, record.value)
        if member is None:
            self._not_ours(record)
            member = NOBODY         # it keeps what it holds, and gets nothing
        node = self.nodes.get(name)
        if node is None:
            self.nodes[name] = NodeLoad(name, member, record.create_revision, record.mod_revision, self.gains)
        else:
            node.member, node.mod_revision = member, record.mod_revision
        return None

    def see_claim(self, event: Event, now: float) -> str | None:
        """Returns the name of a node that is no member, if a claim has come to lie under it: no member's end will bring
        that back."""
        parsed = self._keys.parse_claim(event.record.key)
        if parsed is None:
            self._not_ours(event.record)
            return None
        name, bundle = parsed
        node = self.node(name)
        if event.deleted:
            if node is not None and (ended := node.held.get(bundle)) is not None:
                self._note_end(event.record.mod_revision, bundle, node, ended)
                if ended.since and now - ended.since < SLICE_S:
                    self._paces.quick(ended.task, now)
                if ended.alone and ended.since and name in self.nodes:
                    self._paces.took_alone(ended.task, now - ended.since)
            self.release(name, bundle, now, finished=True)
            return None
        claim = claim_in(event.record.value)
        if claim is None:
            self._not_ours(event.record)
            return name if node is None else None
        home = node
        if home is None:
            home = self.gone[name] = NodeLoad(name, NOBODY, 0, 0)
        held = home.held.get(bundle)
        if held is None:
            held = Assignment(claim.task, claim.queue, claim.mode, claim.pending, claim.lost > 0, True, claim.key,
                              weight=claim.weight)
            self.hold(home, bundle, held)
        else:
            held.confirmed = True
            if claim.pending < held.pending:
                self._count(held, claim.pending - held.pending)
                if claim.back > held.back:
                    self._paces.slow(held.task, now)
                home.shrink(held, claim.pending, claim.back, now)
        return name if node is None else None

    def _note_end(self, revision: int, bundle: str, node: NodeLoad, ended: Assignment) -> None:
        if revision != self._ended_at:
            self._ended_at = revision
            self._ended.clear()
        self._ended[bundle] = (node, ended)

    def came_back(self, bundle: str, revision: int, now: float) -> None:
        """A token lies in its queue: if one write took it there from a node, that node gave it back as it was."""
        if revision == self._ended_at and bundle in self._ended:
            node, ended = self._ended[bundle]
            node.gave_back(ended.mode, now)
            self._paces.forget(ended.task)

    def hold(self, node: NodeLoad, bundle: str, held: Assignment) -> None:
        before = node.release(bundle, 0.0, finished=False)
        if before is not None:      # it is given to the same node again, and what became of the first time is not known
            self._count(before, -before.pending)
        node.hold(bundle, held)
        self._count(held, held.pending)

    def release(self, name: str, bundle: str, now: float, *, finished: bool) -> None:
        node = self.node(name)
        held = node.release(bundle, now, finished=finished) if node is not None else None
        if node is None or held is None:
            return
        self._count(held, -held.pending)
        if not node.held:
            self.gone.pop(name, None)

    # -- reservations ------------------------------------------------------------------------------------------------

    def refused(
        self, node: NodeLoad, bundle: str, held: Assignment, revision: int, now: float, *, doubtful_at: int
    ) -> None:
        """A claim was not written; or in an earlier try it was, and the watch will have shown so at `doubtful_at`."""
        if doubtful_at > revision:
            self._doubtful.append((doubtful_at, node.name, bundle, held))
        else:
            self._unreserve(node.name, bundle, held, now)

    def passed(self, revision: int, now: float) -> None:
        """The watch is here: what it has not shown has not come to be."""
        if self._doubtful:
            over = [entry for entry in self._doubtful if entry[0] <= revision]
            self._doubtful = [entry for entry in self._doubtful if entry[0] > revision]
            for _, name, bundle, held in over:
                self._unreserve(name, bundle, held, now)

    def _unreserve(self, name: str, bundle: str, held: Assignment, now: float) -> None:
        node = self.node(name)
        if node is not None and node.held.get(bundle) is held and not held.confirmed:
            self.release(name, bundle, now, finished=False)
