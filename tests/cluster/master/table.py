"""A master's decisions by hand: events in, commands out, no store."""

from __future__ import annotations

from msgspec.structs import replace

from rota.cluster.ledger.ledger import Event, Record
from rota.cluster.master.dispatch.aggregator import Aggregator
from rota.cluster.master.dispatch.commands import Command, GiveClaim, Split
from rota.cluster.master.dispatch.picture import Picture
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Claim, Member, Token, claim_of, encode

KEYS = Keys("t")


class Table:
    """A hand-fed aggregator: each put is the next revision."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.picture = Picture(KEYS)
        self.aggregator = Aggregator(self.picture)
        self.revision = 10
        self.now = 100.0
        if is_open:
            self.picture.open()

    def put(self, key: bytes, value: bytes, create_revision: int = 0, lease: int = 0) -> int:
        self.revision += 1
        record = Record(key, value, create_revision or self.revision, self.revision, 1, lease)
        self.picture.apply([Event(False, record)], self.revision, self.now)
        return self.revision

    def delete(self, key: bytes) -> None:
        self.revision += 1
        self.picture.apply([Event(True, Record(key, b"", 0, self.revision, 0))], self.revision, self.now)

    def member(self, node: str, slots: int = 2, **changes: object) -> None:
        fields = {
            "address": "", "queues": ["*"], "tasks": {"m:f": "sync", "m:g": "sync"},
            "capacity": {"sync": slots, "async": 0}, "python": "3.11", "version": "0", "since": 0.0,
        }
        self.put(KEYS.node(node), encode(Member(**(fields | changes))), lease=1)  # type: ignore[arg-type]

    def job(self, bundle: str, count: int = 1, queue: str = "q", priority: int = 0, **changes: object) -> Token:
        fields = {
            "task": "m:f", "queue": queue, "priority": priority, "order": self.revision, "count": count,
            "mode": "sync", "at": 0,
        }
        token = Token(**(fields | changes))  # type: ignore[arg-type]
        self.put(KEYS.job(queue, priority, token.order, bundle), encode(token))
        return token

    def decide(self) -> list[Command]:
        return self.aggregator.decide(self.now)

    def given(self) -> list[tuple[str, str]]:
        return [(command.item.bundle, command.node.name) for command in self.decide() if isinstance(command, GiveClaim)]

    def claimed(self, node: str, bundle: str, token: Token, **changes: object) -> None:
        """The watch shows a claim of ours: the token leaves its queue, and lies under the node."""
        claim = self.claim(token, **changes)
        self.delete(KEYS.job(token.queue, token.priority, token.order, bundle))
        self.put(KEYS.claim(node, bundle), encode(claim))

    def ended(self, node: str, bundle: str) -> None:
        self.delete(KEYS.claim(node, bundle))

    def handed_back(self, node: str, bundle: str, token: Token) -> None:
        """The token goes back to its place, in one revision."""
        self.revision += 1
        gone = Record(KEYS.claim(node, bundle), b"", 0, self.revision, 0)
        place = KEYS.job(token.queue, token.priority, token.order, bundle)
        back = Record(place, encode(token), self.revision, self.revision, 1)
        self.picture.apply([Event(True, gone), Event(False, back)], self.revision, self.now)

    def split(self) -> dict[str, int]:
        """The bundles that are split, and into pieces of how many jobs."""
        return {command.item.bundle: command.size for command in self.decide() if isinstance(command, Split)}

    def play(self) -> dict[str, int]:
        """Carry out what is decided until nothing more is: which nodes have how many jobs then."""
        self.given_in_play()
        return {name: sum(held.pending for held in node.held.values()) for name, node in self.aggregator.nodes.items()}

    def play_given(self) -> list[tuple[str, str]]:
        return [(command.item.bundle, command.node.name) for command in self.given_in_play()]

    def given_in_play(self) -> list[GiveClaim]:
        """The same: what has been given out."""
        given: list[GiveClaim] = []
        while commands := self.decide():
            for command in commands:
                if isinstance(command, GiveClaim):
                    given.append(command)
                    self.settle(command)
                    self.claimed(command.node.name, command.item.bundle, command.item.token, mode=command.held.mode)
                elif isinstance(command, Split):
                    self.carry_out(command)
        return given

    @staticmethod
    def claim(token: Token, **changes: object) -> Claim:
        return replace(claim_of(token, 5), **changes)

    def settle(self, command: GiveClaim | Split, wall_ms: int = 0) -> None:
        node, held = (command.node, command.held) if isinstance(command, GiveClaim) else (None, None)
        self.aggregator.settle(
            command.item, node, held, applied=True, token_stale=False, doubtful_at=None, now=self.now,
            wall_ms=wall_ms,
        )

    def carry_out(self, command: Split) -> None:
        token, size = command.item.token, command.size
        assert size < token.count
        self.delete(command.item.key)
        bundle, _, index = command.item.bundle.partition(".")
        for first in range(0, token.count, size):
            piece = f"{bundle}.{int(index or 0) + first:02d}"
            changes = {name: getattr(token, name) for name in Token.__struct_fields__}
            self.put(
                KEYS.job(token.queue, token.priority, token.order, piece),
                encode(Token(**(changes | {"count": min(size, token.count - first)}))),
            )
        self.settle(command)
