"""Where a waiting bundle goes."""

from __future__ import annotations

from rota.cluster.master.dispatch.lane_ids import lane_of
from rota.cluster.master.dispatch.lanes import Item
from rota.cluster.master.dispatch.members import Assignment, NodeLoad
from rota.cluster.master.dispatch.paces import Pace
from rota.cluster.master.dispatch.placement import Cut, Give, place, place_spare
from rota.cluster.master.dispatch.rooms import Gains, Rooms
from rota.cluster.master.dispatch.turns import Gate, GateId
from rota.cluster.state.records import Member, Token


def node(name: str, slots: int, taken: int = 0, spare: int = 0) -> NodeLoad:
    load = NodeLoad(name, Member("", ["*"], {}, {"sync": slots}, "", "", 0.0, spare={"sync": spare}), 1, 1)
    if taken:
        load.hold("taken", Assignment("m:g", "q", "sync", taken, False, True))
    return load


def gate_of(*nodes: NodeLoad, **token: object) -> Gate:  # type: ignore[type-arg]
    gate: Gate = Gate(GateId(lane_of(item(1, **token).token), "*"))  # type: ignore[type-arg]
    gate.rooms = Rooms([(load, "sync") for load in nodes], Gains())
    return gate


def item(count: int, **token: object) -> Item:
    made = Token("m:f", "q", 0, 1, count, "sync", 0, **token)  # type: ignore[arg-type]
    return Item(b"", made, "b", 1, count)


def put(gate: Gate, what: Item, pace: Pace = Pace.UNKNOWN, allowed: int = 1_000) -> Give | Cut | None:  # type: ignore[type-arg]
    return place(gate, what, allowed, careful=False, pace=pace, now=1.0)


def test_a_bundle_goes_to_who_has_most_room_for_it() -> None:
    small, large = node("small", 2), node("large", 5)
    assert put(gate_of(small, large), item(4)) == Give(large, "sync")
    assert put(gate_of(small, large), item(1)) == put(gate_of(large, small), item(1)) == Give(large, "sync")
    large.away_until["sync"] = 2.0          # it has just given something back
    assert put(gate_of(small, large), item(1)) == Give(small, "sync")


def test_what_is_larger_than_any_room_goes_whole_to_who_is_idle() -> None:
    idle, busy = node("idle", 2), node("busy", 9, taken=8)
    assert put(gate_of(busy, idle), item(60)) == Give(idle, "sync")


def test_else_it_is_split_to_the_slots_that_are_free() -> None:
    assert put(gate_of(node("busy", 9, taken=6)), item(60)) == Cut(3)
    assert put(gate_of(node("idle", 9)), item(60), Pace.SLOW) == Cut(1)


def test_who_gets_through_its_jobs_is_given_more_before_it_has_run_dry() -> None:
    """A bundle larger than the room that is left ahead once waited until a slot was free: until nothing ran."""
    busy = node("busy", 2, taken=10)
    busy._through["sync"].add(25, 1.0)                          # in a slice; so there is room for 17 more
    assert put(gate_of(busy), item(60)) == Give(busy, "sync")
    assert put(gate_of(busy), item(91)) is None                 # more than it gets through soon: others may have room
    assert put(gate_of(busy), item(25), Pace.SLOW) == Give(busy, "sync")
    assert put(gate_of(busy), item(60), Pace.SLOW) == Cut(20)   # three of 20, not two of 25 and a rest
    assert put(gate_of(busy), item(60, orphanings=1)) is None
    assert put(gate_of(busy), item(60), allowed=30) is None
    loop = node("loop", 100, taken=110)                         # it has three slices of work: it will not run dry
    loop._through["sync"].add(33, 1.0)
    assert put(gate_of(loop), item(60)) is None and put(gate_of(loop), item(60), Pace.SLOW) is None
    busy.hold("more", Assignment("m:g", "q", "sync", 10, False, True))
    assert put(gate_of(busy), item(25)) is None                 # less than a third of a slice is free
    others = node("others", 9, taken=8)
    others._through["sync"].add(25, 1.0)
    assert put(gate_of(others), item(60)) == Cut(25)            # a slot is free: not one by one, nor all to one node


def test_what_limits_admit_or_suspicion_allows_comes_one_by_one() -> None:
    assert put(gate_of(node("idle", 9)), item(60), allowed=5) == Cut(1)
    assert put(gate_of(node("idle", 9)), item(60, orphanings=1)) == Cut(1)


def test_while_enough_is_being_split_nothing_more_is() -> None:
    gate = gate_of(node("busy", 9, taken=6))
    gate.splitting = 3
    assert put(gate, item(60)) is None
    assert put(gate_of(node("full", 2, taken=2)), item(1)) is None


def test_a_spare_slot_takes_one_job_of_who_has_most_of_them() -> None:
    one, two = node("one", 2, taken=2, spare=1), node("two", 2, taken=2, spare=2)
    assert place_spare(gate_of(one, two), item(1), 1.0) == Give(two, "sync")
    assert place_spare(gate_of(one), item(4), 1.0) == Cut(1)
    assert place_spare(gate_of(node("none", 2, taken=2)), item(1), 1.0) is None
