"""What lies under nodes, as far as the master knows: claims that the watch has shown, and those that it has given."""

from __future__ import annotations

from rota.cluster.ledger.ledger import Event, Record
from rota.cluster.master.dispatch.claims import Claims
from rota.cluster.master.dispatch.limits import Limits
from rota.cluster.master.dispatch.members import Assignment
from rota.cluster.master.dispatch.paces import Pace
from rota.cluster.state.records import Token, encode

from ..table import KEYS, Table

TOKEN = Token("m:f", "q", 0, 1, 2, "sync", 0)


def claims(table: Table) -> Claims:
    return table.picture.claims


def reserve(table: Table) -> Assignment:
    """Given out, and not yet shown."""
    held = Assignment("m:f", "q", "sync", 2, False, False)
    claims(table).hold(claims(table).nodes["n1"], "b", held)
    return held


def counted(table: Table) -> int:
    limits: Limits = table.picture.limits
    return limits.of_task.get("m:f", 0)


def test_the_watch_confirms_what_was_given_and_ends_it() -> None:
    table = Table()
    table.member("n1")
    held = reserve(table)
    table.claimed("n1", "b", TOKEN)
    assert held.confirmed and counted(table) == 2
    table.ended("n1", "b")
    assert not claims(table).nodes["n1"].held and counted(table) == 0
    assert table.picture.paces.of("m:f", table.now) is Pace.UNKNOWN


def test_of_a_node_that_is_gone_claims_count_until_they_are_taken_over() -> None:
    table = Table()
    table.member("n1")
    table.claimed("n1", "b", TOKEN)
    table.delete(KEYS.node("n1"))
    assert "n1" not in claims(table).nodes and counted(table) == 2
    table.ended("n1", "b")
    assert not claims(table).gone and counted(table) == 0


def test_a_claim_under_nobody_names_who_is_to_be_taken_over() -> None:
    table = Table()
    record = Record(KEYS.claim("n9", "b"), encode(table.claim(TOKEN)), 20, 20, 1)
    assert claims(table).see_claim(Event(False, record), table.now) == "n9"
    assert counted(table) == 2


def test_what_was_refused_is_given_up_once_it_is_certain() -> None:
    table = Table()
    table.member("n1")
    held, node = reserve(table), claims(table).nodes["n1"]
    claims(table).refused(node, "b", held, 10, table.now, doubtful_at=15)
    claims(table).passed(14, table.now)
    assert counted(table) == 2
    claims(table).passed(15, table.now)
    assert counted(table) == 0 and not node.held


def test_what_a_node_gives_back_makes_it_stand_aside() -> None:
    table = Table()
    table.member("n1")
    token = table.job("b", count=2)
    table.claimed("n1", "b", token)
    table.handed_back("n1", "b", token)
    assert claims(table).nodes["n1"].away_until["sync"] > table.now and counted(table) == 0
