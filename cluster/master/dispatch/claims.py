"""What the master knows of claims: who holds which bundle, what was given out and is not seen yet, what has just ended.

It is fed by the events of the watch; `count` hears of every job more or less that is claimed.
"""

from __future__ import annotations

from collections.abc import Callable

from ...ledger.ledger import Event, Record
from ...state.keys import Keys
from ...state.records import Member, claim_in, decode
from ...state.throughput import SLICE_S
from .members import NOBODY, Assignment, Seat
from .paces import Paces


class Claims:
    """`seats` are the members by name, `gone` nodes that are none any more: their claims count until they are taken
    over."""

    def __init__(
        self, keys: Keys, paces: Paces, count: Callable[[Assignment, int], None], not_ours: Callable[[Record], None]
    ) -> None:
        self._keys = keys
        self._paces = paces
        self._count = count
        self._not_ours = not_ours
        self.seats: dict[str, Seat] = {}
        self.gone: dict[str, Seat] = {}
        self._ended: dict[str, tuple[Seat, Assignment]] = {}    # bundle -> what its claim was that ended at `_ended_at`
        self._ended_at = 0
        self._doubtful: list[tuple[int, str, str, Assignment]] = []  # (revision, node, bundle, reservation): unsure

    def seat(self, node: str) -> Seat | None:
        """A member's, or that of a node whose claims have not been taken over yet."""
        return self.seats.get(node) or self.gone.get(node)

    def see_node(self, event: Event) -> str | None:
        """Returns the name of a node that is gone."""
        record = event.record
        node = self._keys.parse_node(record.key)
        if node is None:
            self._not_ours(record)
            return None
        if event.deleted or not record.lease:       # a member lives by its lease: without one there is none
            if not event.deleted:
                self._not_ours(record)
            seat = self.seats.pop(node, None)
            if seat is None:
                return None
            if seat.held:
                self.gone[node] = seat
            return node
        member = decode(Member, record.value)
        if member is None:
            self._not_ours(record)
            member = NOBODY         # it keeps what it holds, and gets nothing
        seat = self.seats.get(node)
        if seat is None:
            self.seats[node] = Seat(node, member, record.create_revision, record.mod_revision)
        else:
            seat.member, seat.mod_revision = member, record.mod_revision
        return None

    def see_claim(self, event: Event, now: float) -> str | None:
        """Returns the name of a node that is no member, if a claim has come to lie under it: no member's end will bring
        that back."""
        parsed = self._keys.parse_claim(event.record.key)
        if parsed is None:
            self._not_ours(event.record)
            return None
        node, bundle = parsed
        seat = self.seat(node)
        if event.deleted:
            if seat is not None and (ended := seat.held.get(bundle)) is not None:
                self._note_end(event.record.mod_revision, bundle, seat, ended)
                if ended.since and now - ended.since < SLICE_S:
                    self._paces.quick(ended.task, now)
                if ended.alone and ended.since and node in self.seats:
                    self._paces.took_alone(ended.task, now - ended.since)
            self.release(node, bundle, now, finished=True)
            return None
        claim = claim_in(event.record.value)
        if claim is None:
            self._not_ours(event.record)
            return node if seat is None else None
        home = seat
        if home is None:
            home = self.gone[node] = Seat(node, NOBODY, 0, 0)
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
        return node if seat is None else None

    def _note_end(self, revision: int, bundle: str, seat: Seat, ended: Assignment) -> None:
        if revision != self._ended_at:
            self._ended_at = revision
            self._ended.clear()
        self._ended[bundle] = (seat, ended)

    def came_back(self, bundle: str, revision: int, now: float) -> None:
        """A token lies in its queue: if one write took it there from a node, that node gave it back as it was."""
        if revision == self._ended_at and bundle in self._ended:
            seat, ended = self._ended[bundle]
            seat.gave_back(ended.mode, now)
            self._paces.forget(ended.task)

    def hold(self, seat: Seat, bundle: str, held: Assignment) -> None:
        before = seat.release(bundle, 0.0, finished=False)
        if before is not None:      # it is given to the same node again, and what became of the first time is not known
            self._count(before, -before.pending)
        seat.hold(bundle, held)
        self._count(held, held.pending)

    def release(self, node: str, bundle: str, now: float, *, finished: bool) -> None:
        seat = self.seat(node)
        held = seat.release(bundle, now, finished=finished) if seat is not None else None
        if seat is None or held is None:
            return
        self._count(held, -held.pending)
        if not seat.held:
            self.gone.pop(node, None)

    # -- reservations ------------------------------------------------------------------------------------------------

    def refused(
        self, seat: Seat, bundle: str, held: Assignment, revision: int, now: float, *, doubtful_at: int
    ) -> None:
        """A claim was not written; or in an earlier try it was, and the watch will have shown so at `doubtful_at`."""
        if doubtful_at > revision:
            self._doubtful.append((doubtful_at, seat.node, bundle, held))
        else:
            self._unreserve(seat.node, bundle, held, now)

    def passed(self, revision: int, now: float) -> None:
        """The watch is here: what it has not shown has not come to be."""
        if self._doubtful:
            over = [entry for entry in self._doubtful if entry[0] <= revision]
            self._doubtful = [entry for entry in self._doubtful if entry[0] > revision]
            for _, node, bundle, held in over:
                self._unreserve(node, bundle, held, now)

    def _unreserve(self, node: str, bundle: str, held: Assignment, now: float) -> None:
        seat = self.seat(node)
        if seat is not None and seat.held.get(bundle) is held and not held.confirmed:
            self.release(node, bundle, now, finished=False)
