"""What the master knows of the nodes: what each may run, what it holds, what it gets through."""

from __future__ import annotations

import msgspec

from rota.client.model import Mode

from ...state.records import Member
from ...state.throughput import Throughput
from .lane_ids import LaneId
from .rooms import Gains

STRIDES = 3
"""A busy node is given more when at least this part of its slice is free."""

AWAY_S = 1.0
"""A node that gave something back is passed over for so long, where another one has room, too: it may be busy with jobs
that the master does not see (those of level `none`)."""

MODES: tuple[Mode, ...] = ("sync", "async")

NOBODY = Member("", [], {}, {}, "", "", 0.0, state="gone")


class Assignment(msgspec.Struct, gc=False):
    """A claim under a node. `confirmed`: the watch has shown it; until then it is a reservation of ours."""

    task: str
    queue: str
    mode: Mode
    pending: int
    alone: bool
    confirmed: bool
    key: str = ""
    back: int = 0
    since: float = 0.0
    rated: tuple[tuple[str, str, str], ...] = ()    # by which rates it is counted
    weight: int = 1             # slots that each of its jobs takes


class NodeLoad:
    """A member as the master sees it: what it may run, what it holds, what it gets through."""

    def __init__(
        self, name: str, member: Member, create_revision: int, mod_revision: int, gains: Gains | None = None
    ) -> None:
        self._gains = gains if gains is not None else Gains()
        self.name = name
        self.member = member
        self.create_revision = create_revision
        self.mod_revision = mod_revision
        self.held: dict[str, Assignment] = {}
        self.outstanding: dict[str, int] = {"async": 0, "sync": 0}
        self.alone = 0
        self.heavy: dict[str, int] = {"async": 0, "sync": 0}     # claims of jobs that take several slots
        self.is_closed = False      # for a moment: what it was given last should have it for itself
        self.kept: set[str] = set()     # modes of which it is given nothing: a job that takes several slots waits
        self._through = {"async": Throughput(), "sync": Throughput()}
        self.away_until: dict[str, float] = {"async": 0.0, "sync": 0.0}

    def may_run(self, queue: str, lane: LaneId) -> bool:
        """Whether this node can run these jobs at all, if it has room."""
        return (
            self.serves(queue) and self.member.can_verify(lane.signed) and self.member.slots(lane) >= lane.weight
            and self.member.has(lane.requires)
        )

    def serves(self, queue: str) -> bool:
        return self.member.state == "active" and self.member.serves(queue)

    def free(self, mode: Mode) -> int:
        """Slots that have nothing to do, also where it is closed."""
        return self.member.capacity.get(mode, 0) - self.outstanding[mode]

    def idle(self, mode: Mode) -> int:
        """Slots that have nothing to do."""
        if self.is_closed or mode in self.kept:
            return 0
        return self.member.capacity.get(mode, 0) - self.outstanding[mode]

    def spare(self, mode: Mode) -> int:
        """Slots for queues of which nothing runs: what it has beyond its capacity counts. (Not beside jobs that take
        several: they have these for themselves.)"""
        if self.is_closed or mode in self.kept or self.heavy[mode]:
            return 0
        capacity = self.member.capacity.get(mode, 0)
        return capacity + self.member.spare.get(mode, 0) - self.outstanding[mode] if capacity else 0

    @property
    def has_slot(self) -> bool:
        """Whether anything could begin here at once."""
        return any(slots > self.outstanding.get(mode, 0) for mode, slots in self.member.capacity.items())

    def in_a_slice(self, mode: Mode, now: float) -> int:
        """Jobs it gets through in about 100 ms."""
        return self._through[mode].in_a_slice(now)

    def room(self, mode: Mode, now: float) -> int:
        """Jobs it may still be given: its capacity plus what it gets through in a slice, less what it has."""
        if self.is_closed or mode in self.kept or not self.member.capacity.get(mode):
            return 0
        if self.heavy[mode]:            # what is given ahead would begin in slots that it takes
            return self.idle(mode)
        idle, ahead = self.idle(mode), self._through[mode].in_a_slice(now)
        # refilled in strides, not job by job: each stride is a transaction
        return idle + ahead if idle > 0 or (idle + ahead) * STRIDES >= ahead else 0

    def hold(self, bundle: str, held: Assignment) -> None:
        self.held[bundle] = held
        self.outstanding[held.mode] += held.pending * held.weight
        self.heavy[held.mode] += held.weight > 1
        self.alone += held.alone

    def shrink(self, held: Assignment, pending: int, back: int, now: float) -> None:
        """Some jobs of a claim are done (its bitmap has grown), or were given back."""
        self._through[held.mode].add(held.pending - pending - (back - held.back), now)
        self.outstanding[held.mode] -= (held.pending - pending) * held.weight
        held.pending, held.back = pending, back
        self._gains.note(self)

    def release(self, bundle: str, now: float, *, finished: bool) -> Assignment | None:
        held = self.held.pop(bundle, None)
        if held is not None:
            self.outstanding[held.mode] -= held.pending * held.weight
            self.heavy[held.mode] -= held.weight > 1
            self.alone -= held.alone
            if finished:
                self._through[held.mode].add(held.pending, now)
            self._gains.note(self)
        return held

    def open_again(self) -> None:
        """What it was given has had it for itself for long enough."""
        self.is_closed = False
        self._gains.note(self)

    def keep_no_more(self, mode: Mode) -> None:
        """Nothing that takes several slots waits for it."""
        self.kept.discard(mode)
        self._gains.note(self)

    def gave_back(self, mode: Mode, now: float) -> None:
        """A bundle that was given ahead came back as it was: this node gets through nothing now."""
        self._through[mode] = Throughput()
        self.away_until[mode] = now + AWAY_S
