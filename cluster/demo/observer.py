"""What an onlooker can tell of a cluster from its public keys alone. Pure: changes in, a picture and happenings out.

`rota demo` feeds it one watch over `/rota/<cluster>/`; nothing of it is special to the demo's own processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby

from ..ledger.ledger import Changes, Event
from ..state.keys import Keys, whole
from ..state.records import Claim, Member, Token, decode


@dataclass(slots=True)
class Seen:
    """A node, as far as it can be seen. `claims` are the jobs it still has to do, by bundle."""

    name: str
    address: str = ""
    alive: bool = True
    claims: dict[str, int] = field(default_factory=dict)
    finished: int = 0


@dataclass(slots=True)
class Loss:
    """A node that went away with work in hand. Times are those at which the onlooker heard of it; 0.0: not yet."""

    node: str
    at: float
    was_master: bool
    orphans: Counter[str]               # jobs, by bundle
    jobs: int
    elected: str = ""
    elected_at: float = 0.0
    first_at: float = 0.0               # the first of its jobs was claimed for another node
    all_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Happening:
    at: float
    text: str


def jobs_of(count: int) -> str:
    return f"{count:,} job" if count == 1 else f"{count:,} jobs"


class Observer:
    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self.nodes: dict[str, Seen] = {}
        self.master = ""
        self.losses: list[Loss] = []
        self.happenings: list[Happening] = []
        self._candidates: dict[bytes, tuple[int, str]] = {}

    @property
    def members(self) -> list[Seen]:
        return [node for node in self.nodes.values() if node.alive]

    @property
    def claimed(self) -> int:
        return sum(sum(node.claims.values()) for node in self.nodes.values())

    def take(self, changes: Changes, at: float) -> None:
        """Changes of one revision belong together: a token that leaves a claim may have gone back to its queue."""
        for _, events in groupby(changes.events, lambda event: event.record.mod_revision):
            self._revision(list(events), at)

    def _revision(self, events: list[Event], at: float) -> None:
        back = self._given_back(events)
        for event in events:
            key = event.record.key
            if key.startswith(self._keys.nodes):
                self._member(event, at)
            elif key.startswith(self._keys.master):
                self._candidate(event)
            elif key.startswith(self._keys.claims):
                self._claim(event, back, at)
        self._elect(at)

    def _given_back(self, events: Iterable[Event]) -> Counter[str]:
        """Jobs that lie in a queue (again) as of this revision, by bundle as enqueued."""
        back: Counter[str] = Counter()
        for event in events:
            token = None if event.deleted else decode(Token, event.record.value)
            if token is None:
                continue
            if job := self._keys.parse_job(event.record.key):
                back[whole(job.bundle)] += token.pending
            elif due := self._keys.parse_due(event.record.key):
                back[whole(due[2])] += token.pending
        return back

    def _member(self, event: Event, at: float) -> None:
        name = event.record.key[len(self._keys.nodes):].decode()
        if not event.deleted:
            member = decode(Member, event.record.value)
            if name not in self.nodes:
                self._say(at, f"{name} has joined")
            node = self.nodes.setdefault(name, Seen(name))
            node.address = member.address if member else ""
        elif name in self.nodes:
            self.nodes[name].alive = False
            self._lost(self.nodes[name], at)

    def _lost(self, node: Seen, at: float) -> None:
        orphans: Counter[str] = Counter()
        for bundle, jobs in node.claims.items():
            orphans[whole(bundle)] += jobs
        was_master = node.name == self.master
        self.losses.append(Loss(node.name, at, was_master, orphans, orphans.total()))
        kind = "the master" if was_master else "a node"
        self._say(at, f"{node.name}, {kind}, is gone and leaves {jobs_of(orphans.total())} behind")

    def _candidate(self, event: Event) -> None:
        if event.deleted:
            self._candidates.pop(event.record.key, None)
        else:
            self._candidates[event.record.key] = (event.record.create_revision, event.record.value.decode())

    def _elect(self, at: float) -> None:
        _, master = min(self._candidates.values(), default=(0, ""))
        if master == self.master:
            return
        self.master = master
        if master:
            self._say(at, f"{master} is master")
            for loss in self.losses:
                if loss.was_master and not loss.elected:
                    loss.elected, loss.elected_at = master, at

    def _claim(self, event: Event, back: Counter[str], at: float) -> None:
        parsed = self._keys.parse_claim(event.record.key)
        if parsed is None:
            return
        name, bundle = parsed
        node = self.nodes.setdefault(name, Seen(name))
        before = node.claims.pop(bundle, 0)
        claim = None if event.deleted else decode(Claim, event.record.value)
        pending = claim.pending if claim else 0
        if pending:
            node.claims[bundle] = pending
        if not event.deleted and event.record.version == 1:
            self._taken_over(name, whole(bundle), pending, at)
            return
        gone = max(0, before - pending)
        moved = min(gone, back[whole(bundle)])
        back[whole(bundle)] -= moved
        node.finished += gone - moved

    def _taken_over(self, node: str, bundle: str, jobs: int, at: float) -> None:
        for loss in self.losses:
            if loss.node == node or bundle not in loss.orphans:
                continue
            loss.first_at = loss.first_at or at
            loss.orphans[bundle] -= jobs
            if loss.orphans[bundle] <= 0:
                del loss.orphans[bundle]
            if not loss.orphans:
                loss.all_at = at

    def _say(self, at: float, text: str) -> None:
        self.happenings.append(Happening(at, text))
