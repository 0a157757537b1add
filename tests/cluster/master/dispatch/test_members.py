"""A member as the master sees it: its slots, what it holds, what it gets through."""

from __future__ import annotations

from rota.cluster.master.dispatch.lane_ids import lane_of
from rota.cluster.master.dispatch.members import AWAY_S, Assignment, NodeLoad
from rota.cluster.state.records import Member, Token

MEMBER = Member("", ["q"], {"m:f": "sync"}, {"sync": 4, "async": 0}, "3.11", "0", 0.0, spare={"sync": 1})


def node(member: Member = MEMBER) -> NodeLoad:
    return NodeLoad("n1", member, 1, 1)


def assignment(pending: int = 1, **more: object) -> Assignment:
    return Assignment("m:f", "q", "sync", pending, False, True, **more)  # type: ignore[arg-type]


def token(**more: object) -> Token:
    return Token("m:f", "q", 0, 1, 1, "sync", 0, **more)  # type: ignore[arg-type]


def test_it_may_run_what_its_queues_code_and_slots_allow() -> None:
    assert node().may_run("q", lane_of(token())) and not node().may_run("r", lane_of(token()))
    assert not node().may_run("q", lane_of(token(weight=5)))
    assert not node().may_run("q", lane_of(token(requires=("gpu",))))
    assert not node(Member("", ["q"], {}, {"sync": 4}, "3.11", "0", 0.0)).may_run("q", lane_of(token()))


def test_slots_are_taken_by_weight_and_come_free() -> None:
    load = node()
    load.hold("b1", assignment(1, weight=3))
    assert (load.idle("sync"), load.free("sync"), load.heavy["sync"]) == (1, 1, 1)
    assert load.spare("sync") == 0                      # beside what takes several slots there are none
    load.release("b1", 1.0, finished=True)
    assert (load.idle("sync"), load.heavy["sync"], load.spare("sync")) == (4, 0, 5)


def test_what_has_ended_of_a_claim_makes_room() -> None:
    load = node()
    held = assignment(4)
    load.hold("b1", held)
    assert load.idle("sync") == 0 and not load.has_slot and load.spare("sync") > 0
    load.shrink(held, 1, 0, 1.0)
    assert load.idle("sync") == 3 and load.has_slot


def test_a_node_that_gets_through_much_is_given_ahead_until_it_gives_back() -> None:
    load = node()
    assert load.room("sync", 1.0) == 4
    for number in range(50):
        load.hold(f"b{number}", assignment(4))
        load.release(f"b{number}", 1.0 + number / 100, finished=True)
    assert load.room("sync", 1.5) > 4
    load.gave_back("sync", 1.5)
    assert load.room("sync", 1.5) == 4 and load.away_until["sync"] == 1.5 + AWAY_S


def test_one_that_is_closed_or_kept_is_given_nothing() -> None:
    load = node()
    load.is_closed = True
    assert load.idle("sync") == load.room("sync", 1.0) == load.spare("sync") == 0 and load.free("sync") == 4
    load.is_closed = False
    load.kept.add("sync")
    assert load.idle("sync") == load.room("sync", 1.0) == 0
