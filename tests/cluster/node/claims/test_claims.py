"""The table of claims: what lies here, and what the watch may still show of what has ended."""

from __future__ import annotations

import asyncio

from rota.client.model import TaskInfo
from rota.cluster.ledger.ledger import Record
from rota.cluster.node.claims import table as claims
from rota.cluster.node.claims.held import Held
from rota.cluster.node.claims.table import Claims, must_not_repeat
from rota.cluster.state.records import claim_of

from ..bench import BUNDLE, KEYS, NODE, OTHER, token

CLAIM = claim_of(token(), 5)


def record(revision: int, bundle: str = BUNDLE) -> Record:
    return Record(KEYS.claim(NODE, bundle), b"", revision, revision, 1)


def add(table: Claims, revision: int = 7, bundle: str = BUNDLE) -> Held:
    return table.add(bundle, record(revision, bundle), CLAIM)


def test_it_is_found_by_its_bundle_and_by_its_number() -> None:
    table = Claims()
    first, second = add(table), add(table, bundle=OTHER)
    assert table.of(BUNDLE) is first and table.of(OTHER) is second and table.of("none") is None
    assert table.by_key(first.key) is first and table.by_key(second.key) is second
    assert len(table) == 2 and list(table) == [first, second]


def test_numbers_are_never_used_again() -> None:
    table = Claims()
    first = add(table)
    table.forget(first)
    assert add(table).key != first.key and table.by_key(first.key) is None


def test_what_is_forgotten_is_over_and_has_ended() -> None:
    table = Claims()
    held = add(table)
    table.forget(held)
    assert held.over and len(table) == 0 and table.of(BUNDLE) is None
    assert table.has_ended(BUNDLE, 7) and not table.has_ended(BUNDLE, 8)


def test_a_bundle_that_came_again_is_not_forgotten_with_its_old_claim() -> None:
    table = Claims()
    old, new = add(table, 7), add(table, 9)
    table.forget(old)
    assert table.of(BUNDLE) is new and not new.over and table.by_key(new.key) is new


def test_it_is_held_under_this_claim_or_one_that_is_not_stored_yet() -> None:
    table = Claims()
    assert not table.is_held(BUNDLE, 7)
    own = add(table, 0)
    assert table.is_held(BUNDLE, 7)
    table.forget(own)
    add(table, 7)
    assert table.is_held(BUNDLE, 7) and not table.is_held(BUNDLE, 9)


def test_what_has_begun_does_not_begin_again() -> None:
    table = Claims()
    assert table.note_begun(BUNDLE) and not table.note_begun(BUNDLE)
    table.may_begin_again(BUNDLE)
    assert table.note_begun(BUNDLE)
    add(table, bundle=OTHER)
    assert not table.note_begun(OTHER)          # it lies here already


def test_its_memory_has_a_bound() -> None:
    table = Claims()
    for number in range(claims.REMEMBERED_MAX + 1):
        table.note_ended(BUNDLE, number)
    assert not table.has_ended(BUNDLE, 0) and table.has_ended(BUNDLE, 1)


async def test_until_empty() -> None:
    table = Claims()
    await table.until_empty()
    first, second = add(table), add(table, bundle=OTHER)
    waiting = asyncio.ensure_future(table.until_empty())
    table.forget(first)
    await asyncio.sleep(0)
    assert not waiting.done()
    table.forget(second)
    await waiting


def test_what_must_not_repeat_says_its_task() -> None:
    tasks = {"m:f": TaskInfo("m:f", "async"), "m:once": TaskInfo("m:once", "async", on_orphan="fail")}
    assert not must_not_repeat(tasks, CLAIM)
    assert must_not_repeat(tasks, claim_of(token(task="m:once"), 5))
    assert not must_not_repeat({}, CLAIM)
