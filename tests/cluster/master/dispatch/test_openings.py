"""Which gates are open."""

from __future__ import annotations

from rota.cluster.master.dispatch.heavy import Heavy
from rota.cluster.master.dispatch.lane_ids import lane_of
from rota.cluster.master.dispatch.openings import CAREFUL_BELOW, Openings
from rota.cluster.master.dispatch.rooms import Rooms
from rota.cluster.master.dispatch.turns import ALONE_WAIT_S, Gate, GateId
from rota.cluster.state.records import TaskRecord, Token, encode

from ..table import KEYS, Table


def stage(**token: object) -> tuple[Table, Openings, Gate]:  # type: ignore[type-arg]
    """A node of two slots, and a gate before it."""
    table = Table()
    table.member("n1")
    openings = Openings(table.picture.limits, table.picture.rates, Heavy())
    openings.begin(0)
    lane = lane_of(Token("m:f", "q", 0, 1, 1, "sync", 0, **token))  # type: ignore[arg-type]
    gate: Gate = Gate(GateId(lane, "*"))  # type: ignore[type-arg]
    gate.rooms = Rooms([(table.picture.nodes["n1"], "sync")], table.picture.claims.gains)
    return table, openings, gate


def take(table: Table, count: int = 2) -> None:
    table.claimed("n1", "b", Token("m:g", "q", 0, 1, count, "sync", 0))


def test_a_gate_is_open_while_a_node_has_room() -> None:
    table, openings, gate = stage()
    assert openings.has_room(gate, table.now)
    take(table)
    assert not openings.has_room(gate, table.now)


def test_it_is_shut_where_the_tasks_limit_is_reached() -> None:
    table, openings, gate = stage()
    table.put(KEYS.task("m:f"), encode(TaskRecord("sync", max_concurrency=1)))
    assert openings.has_room(gate, table.now)
    table.claimed("n1", "b", Token("m:f", "q", 0, 1, 1, "sync", 0))
    assert not openings.has_room(gate, table.now)


def test_what_was_lost_while_it_ran_waits_for_an_empty_node_for_a_while() -> None:
    table, openings, gate = stage(lost=1)
    take(table, 1)
    assert not openings.has_room(gate, table.now) and gate.alone_since == table.now
    assert openings.has_room(gate, table.now + ALONE_WAIT_S)
    table.ended("n1", "b")
    assert openings.has_room(gate, table.now) and gate.alone_since is None
    take(table)
    assert not openings.has_room(gate, table.now)
    assert not openings.has_room(gate, table.now + ALONE_WAIT_S)        # no slot is free, however long it waits


def test_care_is_taken_of_what_is_suspect_or_nearly_at_its_limit() -> None:
    _, openings, gate = stage()
    assert not openings.careful(gate.id.lane, CAREFUL_BELOW)
    assert openings.careful(gate.id.lane, CAREFUL_BELOW - 1)
    _, openings, suspect = stage(orphanings=1)
    assert openings.careful(suspect.id.lane, CAREFUL_BELOW)
