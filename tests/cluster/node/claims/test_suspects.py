"""Bundles that were lost while they ran: one at a time."""

from __future__ import annotations

from msgspec.structs import replace

from rota.cluster.ledger.ledger import Record
from rota.cluster.node.claims.held import Held
from rota.cluster.node.claims.suspects import Suspects
from rota.cluster.node.claims.table import Claims
from rota.cluster.state.records import claim_of

from ..bench import KEYS, NODE, token


def held(table: Claims, bundle: str, lost: int) -> Held:
    claim = claim_of(token(1, orphanings=1, lost=lost), 5)
    return table.add(bundle, Record(KEYS.claim(NODE, bundle), b"", 7, 7, 1), claim)


def start(one: Held) -> None:
    one.claim = replace(one.claim, started=True)


def test_one_that_was_only_held_waits_for_nobody() -> None:
    table, suspects = Claims(), Suspects()
    first, second = held(table, "a", 0), held(table, "b", 0)
    assert suspects.admit(first) is first and suspects.admit(second) is second
    assert suspects.leave(first) is None


def test_those_that_ran_run_one_by_one_in_their_order() -> None:
    table, suspects = Claims(), Suspects()
    first, second, third = (held(table, name, 1) for name in "abc")
    assert suspects.admit(first) is first
    start(first)
    assert suspects.admit(second) is None and suspects.admit(third) is None
    assert suspects.leave(first) is second
    start(second)
    assert suspects.leave(third) is None        # gone before its turn
    assert suspects.leave(second) is None


def test_twins_are_two() -> None:
    """Under another claim a bundle is another, however alike they look."""
    table, suspects = Claims(), Suspects()
    first, again = held(table, "a", 1), held(table, "a", 1)
    assert suspects.admit(first) is first
    start(first)
    assert suspects.admit(again) is None
    assert suspects.leave(first) is again
