"""Who has most room is found without a look at every node, and is who a look at every node would find."""

from __future__ import annotations

import random

import pytest

from rota.client.model import Mode
from rota.cluster.master.dispatch import rooms as module
from rota.cluster.master.dispatch.members import Assignment, NodeLoad
from rota.cluster.master.dispatch.rooms import Gains, Kind, Room, Rooms, room_of
from rota.cluster.state.records import Member

MODES: tuple[Mode, Mode] = ("sync", "async")


def by_looking(rooms: Rooms, now: float, kind: Kind) -> Room | None:
    return max(rooms.all(now, kind), key=lambda room: room[:2], default=None)


class World:
    """Nodes, and what may befall them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.gains = Gains()
        self.now = 100.0
        self.nodes = [
            NodeLoad(f"n{number}", self._member(), 1, 1, self.gains) for number in range(self.random.choice((1, 2, 7)))
        ]

    def _member(self) -> Member:
        slots, spare = ({mode: self.random.randrange(4) for mode in MODES} for _ in range(2))
        return Member("", ["*"], {}, slots, "", "", 0.0, spare=spare)

    def step(self) -> None:
        node, mode = self.random.choice(self.nodes), self.random.choice(MODES)
        held = list(node.held)
        match self.random.randrange(12):
            case 0 | 1 | 2 | 3:
                pending, weight = self.random.randrange(1, 4), self.random.choice((1, 1, 1, 2))
                node.hold(f"b{self.random.random()}", Assignment(
                    "t", "q", mode, pending, self.random.random() < 0.2, True, weight=weight
                ))
            case 4 | 5 | 6 if held:
                node.release(self.random.choice(held), self.now, finished=self.random.random() < 0.7)
            case 7 if held:
                claim = node.held[self.random.choice(held)]
                node.shrink(claim, claim.pending - self.random.randrange(claim.pending + 1), claim.back, self.now)
            case 8:
                node.gave_back(mode, self.now)
            case 9:
                node.is_closed = True
                node.kept.add(mode)
            case 10:
                node.open_again()
                node.keep_no_more(mode)
            case _:
                self.now += self.random.choice((0.01, 0.15, 1.1))


@pytest.mark.parametrize("seed", range(30))
def test_the_best_is_who_a_look_at_all_would_find(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GAINS_KEPT", 20)
    world = World(seed)
    rooms = [Rooms(tuple((node, mode) for node in world.nodes), world.gains) for mode in MODES]
    for _ in range(400):
        world.step()
        if world.random.random() < 0.5:
            asked, kind = world.random.choice(rooms), world.random.choice(list(Kind))
            assert asked.best(world.now, kind) == by_looking(asked, world.now, kind)


def test_a_lone_jobs_place_costs_no_look_at_every_node(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[NodeLoad] = []

    def counted(node: NodeLoad, mode: Mode, now: float, kind: Kind) -> Room:
        looks.append(node)
        return room_of(node, mode, now, kind)

    gains = Gains()
    nodes = [
        NodeLoad(f"n{number}", Member("", ["*"], {}, {"sync": 9}, "", "", 0.0), 1, 1, gains) for number in range(50)
    ]
    rooms = Rooms(tuple((node, "sync") for node in nodes), gains)
    assert rooms.best(1.0, Kind.AHEAD) is not None
    monkeypatch.setattr(module, "room_of", counted)
    for number in range(1_000):
        best = rooms.best(1.0, Kind.AHEAD)
        assert best is not None
        best.node.hold(str(number), Assignment("t", "q", "sync", 1, False, True))
        if number >= 100:
            nodes[number % 50].release(next(iter(nodes[number % 50].held)), 1.0, finished=True)
    assert len(looks) < 4_000

