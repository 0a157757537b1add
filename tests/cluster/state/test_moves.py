"""Every move does what the state diagram says, and the diagram says all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rota.client.model import Header, ResultEntry, Terms, Upstream
from rota.client.options.timetable import Timetable
from rota.client.wire.codec import decode_header, encode_body
from rota.client.wire.keyring import UNSIGNED, Seal
from rota.cluster.ledger.commits import Write, created, unmodified
from rota.cluster.ledger.ledger import Condition, Delete, Put, Record
from rota.cluster.state import moves
from rota.cluster.state.express import ahead_of_nothing
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import (
    Claim,
    FailedRecord,
    Token,
    awaiting_of,
    begun,
    bits,
    claim_of,
    decode,
    encode,
    failure_in,
)
from rota.cluster.state.schedules import ScheduleRecord

ROOT = Path(__file__).parents[3]
KEYS = Keys("c")
BUNDLE, OTHER = "0s8sf4s75de1-00000004", "0s8sf4s75de1-00000005"
AREAS = {
    KEYS.jobs: "waiting", KEYS.scheduled: "scheduled", KEYS.awaiting: "awaiting", KEYS.claims: "claimed",
    KEYS.failed: "failed",
}
NOWHERE = "[*]"

TOKEN = Token("m:f", "q", 0, 7, 4, "sync", 1_000, key="k")
CLAIM = claim_of(TOKEN, 5)
AWAITING = awaiting_of(TOKEN, Terms(after=(Upstream("0s8sf4s75de1-00000003", "1"),)), 0)
LATER = awaiting_of(TOKEN, Terms(after=(Upstream("0s8sf4s75de1-00000003", "1"),)), 9_000)
SEAL = Seal(UNSIGNED, "c")
BODY = encode_body(Header(BUNDLE, "m:f", "q", "sync", [0, 1, 2, 3], [1] * 4, 0.0), [b"a", b"b", b"c", b"d"])
WHO = (created(KEYS.node("n"), 3),)

PLACES = {
    "waiting": unmodified(KEYS.job("q", 0, 7, BUNDLE), 11), "scheduled": unmodified(KEYS.due(9_000, "q", BUNDLE), 11),
    "awaiting": unmodified(KEYS.awaits("q", BUNDLE), 11), "claimed": unmodified(KEYS.claim("n", BUNDLE), 11),
    "failed": unmodified(KEYS.failed_job("q", BUNDLE, 0), 11),
}
WAITING, SCHEDULED, HELD_BACK, CLAIMED, FAILED = PLACES.values()
FAILURE = moves.fail(KEYS, BUNDLE, 1, TOKEN, body=b"", error="no", at_s=1.0)

TAIL = unmodified(KEYS.tail("q"), 11)
SCHEDULE = unmodified(KEYS.schedule("nightly"), 11)
RECORD = ScheduleRecord("m:f", "q", "sync", Timetable(every_s=60.0), 1_000, 1_000)

SAMPLES: list[tuple[str, str, Write | moves.Ops]] = [     # (move, from where, what it writes)
    ("enqueue", NOWHERE, moves.enqueue(KEYS, WHO, BUNDLE, TOKEN, BODY, "digest", 1)),
    ("enqueue", NOWHERE, moves.enqueue(KEYS, WHO, BUNDLE, TOKEN, BODY, "digest", 1, due_ms=9_000)),
    ("enqueue", NOWHERE, moves.enqueue(KEYS, WHO, BUNDLE, AWAITING, BODY, "digest", 1)),
    ("release", "awaiting", moves.release(KEYS, WHO, HELD_BACK, BUNDLE, AWAITING, 12)),
    ("release", "awaiting", moves.release(KEYS, WHO, HELD_BACK, BUNDLE, LATER, 12)),
    ("release", "awaiting", moves.release(KEYS, WHO, HELD_BACK, BUNDLE, AWAITING, 12, tail=TAIL)),
    ("wake", "awaiting", moves.wake(KEYS, WHO, HELD_BACK, BUNDLE, AWAITING, 12)),
    ("wake", "awaiting", moves.wake(KEYS, WHO, HELD_BACK, BUNDLE, LATER, 12, TAIL)),
    ("cancel_some", "awaiting", moves.cancel_some(WHO, HELD_BACK, AWAITING, [1])),
    ("cancel", "awaiting", moves.cancel(KEYS, WHO, HELD_BACK, BUNDLE, AWAITING)),
    ("replace", "awaiting", moves.replace(
        KEYS, HELD_BACK, BUNDLE, moves.enqueue(KEYS, WHO, OTHER, TOKEN, BODY, "d", 1)
    )),
    ("replace", "awaiting", moves.replace(
        KEYS, HELD_BACK, BUNDLE, moves.enqueue(KEYS, WHO, OTHER, TOKEN, BODY, "d", 1, due_ms=9_000)
    )),
    ("replace", "awaiting", moves.replace(
        KEYS, HELD_BACK, BUNDLE, moves.enqueue(KEYS, WHO, OTHER, AWAITING, BODY, "d", 1)
    )),
    ("replace", "waiting", moves.replace(
        KEYS, WAITING, BUNDLE, moves.enqueue(KEYS, WHO, OTHER, AWAITING, BODY, "d", 1)
    )),
    ("replace", "scheduled", moves.replace(
        KEYS, SCHEDULED, BUNDLE, moves.enqueue(KEYS, WHO, OTHER, AWAITING, BODY, "d", 1)
    )),
    ("expire", "awaiting", moves.expire(KEYS, WHO, HELD_BACK, BUNDLE, AWAITING)),
    ("abandon", "awaiting", moves.abandon(KEYS, WHO, HELD_BACK, BUNDLE, OTHER, OTHER)),
    ("set_aside", "awaiting", moves.set_aside(KEYS, WHO, HELD_BACK, BUNDLE, AWAITING, FAILURE)),
    ("enqueue_claimed", NOWHERE, moves.enqueue_claimed(KEYS, WHO, BUNDLE, CLAIM, "n", BODY, "digest", 1)),
    ("enqueue_express", NOWHERE, moves.enqueue_express(
        KEYS, WHO, BUNDLE, CLAIM, "n", BODY, "digest", 1,
        ahead=ahead_of_nothing(KEYS, "q", "m:f", word_at=3, task_at=4),
    )),
    ("fire", NOWHERE, moves.fire(KEYS, WHO, SCHEDULE, RECORD, [moves.Fired(BUNDLE, TOKEN, BODY)])),
    ("fire", NOWHERE, moves.fire(KEYS, WHO, SCHEDULE, RECORD, [moves.Fired(BUNDLE, TOKEN, BODY, 9_000)])),
    ("claim", "waiting", moves.claim(KEYS, WHO, WAITING, BUNDLE, TOKEN, "n", fence=5, serial=False)),
    ("split", "waiting", moves.split(
        KEYS, SEAL, WHO, WAITING, BUNDLE, TOKEN, Record(KEYS.body(BUNDLE), BODY, 1, 1, 1), 2
    )),
    ("cancel_some", "waiting", moves.cancel_some(WHO, WAITING, TOKEN, [1])),
    ("cancel_some", "scheduled", moves.cancel_some(WHO, SCHEDULED, TOKEN, [1])),
    ("retry_head", "waiting", moves.retry_head(WHO, WAITING, TOKEN)),
    ("cancel", "waiting", moves.cancel(KEYS, WHO, WAITING, BUNDLE, TOKEN)),
    ("cancel", "scheduled", moves.cancel(KEYS, WHO, SCHEDULED, BUNDLE, TOKEN)),
    ("expire", "waiting", moves.expire(KEYS, WHO, WAITING, BUNDLE, TOKEN)),
    ("expire", "scheduled", moves.expire(KEYS, WHO, SCHEDULED, BUNDLE, TOKEN)),
    ("replace", "waiting", moves.replace(KEYS, WAITING, BUNDLE, moves.enqueue(KEYS, WHO, OTHER, TOKEN, BODY, "d", 1))),
    ("replace", "waiting", moves.replace(
        KEYS, WAITING, BUNDLE, moves.enqueue(KEYS, WHO, OTHER, TOKEN, BODY, "d", 1, due_ms=9_000)
    )),
    ("replace", "scheduled", moves.replace(
        KEYS, SCHEDULED, BUNDLE, moves.enqueue(KEYS, WHO, OTHER, TOKEN, BODY, "d", 1)
    )),
    ("replace", "scheduled", moves.replace(
        KEYS, SCHEDULED, BUNDLE, moves.enqueue(KEYS, WHO, OTHER, TOKEN, BODY, "d", 1, due_ms=9_000)
    )),
    ("skip_head", "waiting", moves.skip_head(KEYS, WHO, WAITING, BUNDLE, TOKEN, FAILURE)),
    ("set_aside", "waiting", moves.set_aside(KEYS, WHO, WAITING, BUNDLE, TOKEN, FAILURE)),
    ("set_aside", "scheduled", moves.set_aside(KEYS, WHO, SCHEDULED, BUNDLE, TOKEN, FAILURE)),
    ("set_aside", "claimed", moves.set_aside(KEYS, WHO, CLAIMED, BUNDLE, TOKEN, FAILURE)),
    ("become_due", "scheduled", moves.become_due(KEYS, WHO, SCHEDULED, BUNDLE, TOKEN, 12)),
    ("become_due", "scheduled", moves.become_due(KEYS, WHO, SCHEDULED, BUNDLE, TOKEN, 12, TAIL)),
    ("mark_started", "claimed", moves.mark_started(KEYS, WHO, CLAIMED, CLAIM, begun(CLAIM, started=True))),
    ("record", "claimed", moves.record(CLAIMED.key, CLAIM)),
    ("part_with", "claimed", moves.part_with(KEYS, SEAL, CLAIMED.key, BUNDLE, CLAIM, BODY, [
        ([1], TOKEN, 9_000), ([2], AWAITING, 0)
    ])),
    *((
        "set_some_aside", place, moves.set_some_aside(KEYS, WHO, at, BUNDLE, b"", b"", FAILURE)
    ) for place, at in (
        ("awaiting", HELD_BACK), ("waiting", WAITING), ("scheduled", SCHEDULED), ("claimed", CLAIMED)
    )),
    ("give_back", "claimed", moves.give_back(KEYS, SEAL, CLAIMED.key, BUNDLE, CLAIM, BODY, [1, 2, 3], 2)),
    ("hand_back", "claimed", moves.hand_back(KEYS, WHO, CLAIMED, BUNDLE, CLAIM)),
    ("take_over", "claimed", moves.take_over(KEYS, WHO, CLAIMED, BUNDLE, CLAIM, lost=0)),
    ("take_over", "claimed", moves.take_over(KEYS, WHO, CLAIMED, BUNDLE, CLAIM, lost=0, due_ms=9_000)),
    ("retry", "claimed", moves.retry(KEYS, SEAL, CLAIMED.key, BUNDLE, BODY, 0, [([0, 1, 2, 3], TOKEN, 9_000)])),
    ("retry", "claimed", moves.retry(
        KEYS, SEAL, CLAIMED.key, BUNDLE, BODY, 0, [([0, 2], TOKEN, 9_000), ([1, 3], TOKEN, 9_900)]
    )),
    ("remember_first", "claimed", moves.remember_first(CLAIMED.key, CLAIM, Put(KEYS.step(BUNDLE, 0, 0), b""))),
    ("suspend", "claimed", moves.suspend(KEYS, SEAL, CLAIMED.key, BUNDLE, BODY, 0, [
        ([0, 2], TOKEN, 9_000), ([1, 3], AWAITING, 0)
    ])),
    ("sleep_in_place", "claimed", moves.sleep_in_place(KEYS, CLAIMED.key, BUNDLE, TOKEN, 9_000)),
    ("retry_in_place", "claimed", moves.retry_in_place(KEYS, CLAIMED.key, BUNDLE, TOKEN, 9_000)),
    ("block", "claimed", moves.block(KEYS, CLAIMED.key, BUNDLE, TOKEN)),
    ("fail", "claimed", (*moves.fail(KEYS, BUNDLE, 1, TOKEN, body=b"", error="no", at_s=1.0), Delete(CLAIMED.key))),
    ("end", "claimed", moves.end(KEYS, CLAIMED.key, BUNDLE, CLAIM)),
    ("revive", "failed", moves.revive(KEYS, WHO, FAILED, KEYS.failure(BUNDLE, 0), f"{BUNDLE}.00", TOKEN, BODY)),
    ("delete", "failed", moves.delete(KEYS, WHO, FAILED, BUNDLE, 0)),
]
NO_MOVES = {
    "Bound", "Conditions", "Fired", "Ops", "finished", "forget_steps", "forgotten", "given", "let_in", "let_out",
    "not_well", "remember", "remembered", "result",
}
"""What the package exports beside moves: types, what is left of jobs that have ended, and who is given that."""


def ops_of(what: Write | moves.Ops) -> moves.Ops:
    return what.ops if isinstance(what, Write) else what


def area(key: bytes) -> str | None:
    return next((name for prefix, name in AREAS.items() if key.startswith(prefix)), None)


def edges_in(text: str) -> set[tuple[str, str, str]]:
    """(move, from, to) of a state diagram."""
    return {(move, start, to) for start, to, move in re.findall(r"^ *(\S+) --> (\S+): (\w+)$", text, re.MULTILINE)}


def test_the_diagram_shows_what_the_moves_do() -> None:
    found = set()
    for move, start, what in SAMPLES:
        reached = {area(op.key) for op in ops_of(what) if isinstance(op, Put)} - {None}
        found |= {(move, start, to or "") for to in reached or {NOWHERE}}
    assert found == edges_in(moves.__doc__ or "")


def test_the_diagram_shows_every_move() -> None:
    assert {move for move, _, _ in SAMPLES} == set(moves.__all__) - NO_MOVES


def test_the_page_on_internals_shows_the_same_diagram() -> None:
    assert edges_in((ROOT / "docs/internals.md").read_text()) == edges_in(moves.__doc__ or "")


@pytest.mark.parametrize(("move", "start", "what"), SAMPLES)
def test_a_token_is_in_one_place(move: str, start: str, what: Write | moves.Ops) -> None:
    """It leaves where it was, unless it is written there anew; it has one place afterwards (its pieces, one each); each
    key is touched once; and the write is guarded by what was seen there."""
    ops = ops_of(what)
    assert len({op.key for op in ops}) == len(ops)
    if start in PLACES:
        assert PLACES[start].key in [op.key for op in ops]
        assert not isinstance(what, Write) or PLACES[start] in what.conditions
    tokens = [op.key.rpartition(b"/")[2] for op in ops if isinstance(op, Put) and area(op.key) not in (None, "failed")]
    assert len(set(tokens)) == len(tokens)
    if isinstance(what, Write):
        assert what.conditions[:len(WHO)] == WHO


@pytest.mark.parametrize(("move", "start", "what"), SAMPLES)
def test_bodies_go_with_their_tokens(move: str, start: str, what: Write | moves.Ops) -> None:
    """Where a token ends, so does its body; where one appears under a new name, its body does."""
    ops = ops_of(what)
    deleted = {op.key for op in ops if isinstance(op, Delete)}
    bodies = {op.key[len(KEYS.bodies):] for op in ops if isinstance(op, Put) and op.key.startswith(KEYS.bodies)}
    names = {op.key.rpartition(b"/")[2] for op in ops if isinstance(op, Put) and area(op.key) not in (None, "failed")}
    if start == NOWHERE:
        assert bodies == names == {BUNDLE.encode()}
    else:
        assert names - {BUNDLE.encode()} == bodies
    if start in ("waiting", "scheduled", "claimed") and move != "fail" and BUNDLE.encode() not in names:
        assert KEYS.body(BUNDLE) in deleted


def put_in(what: Write | moves.Ops, prefix: bytes) -> list[Put]:
    return [op for op in ops_of(what) if isinstance(op, Put) and op.key.startswith(prefix)]


def token_put(what: Write | moves.Ops, prefix: bytes = KEYS.jobs) -> Token:
    (put,) = put_in(what, prefix)
    token = decode(Token, put.value)
    assert token is not None
    return token


# -- what each of them changes ---------------------------------------------------------------------------------------


def test_a_repeated_enqueue_finds_its_receipt() -> None:
    write = moves.enqueue(KEYS, WHO, BUNDLE, TOKEN, BODY, "digest", 9)
    assert created(KEYS.receipt(BUNDLE), 0) in write.conditions
    (receipt,) = put_in(write, KEYS.receipts)
    assert receipt.lease == 9


def test_an_enqueue_at_the_end_of_a_serial_queue_moves_its_tail() -> None:
    tail = unmodified(KEYS.tail("q"), 4)
    write = moves.enqueue(KEYS, WHO, BUNDLE, TOKEN, BODY, "digest", 9, tail=tail)
    assert tail in write.conditions and Put(tail.key, b"7") in write.ops


def test_a_claim_says_who_gave_it_out() -> None:
    (put,) = put_in(moves.claim(KEYS, WHO, WAITING, BUNDLE, TOKEN, "n", fence=5, serial=True), KEYS.claims)
    assert put.key == KEYS.claim("n", BUNDLE)
    assert decode(Claim, put.value) == claim_of(TOKEN, 5, serial=True)


def test_a_split_leaves_out_what_is_done() -> None:
    token = Token("m:f", "q", 0, 7, 4, "sync", 1_000, done="2")
    write = moves.split(KEYS, SEAL, WHO, WAITING, BUNDLE, token, Record(KEYS.body(BUNDLE), BODY, 1, 1, 1), 2)
    bodies = {put.key: decode_header(put.value)[0].indexes for put in put_in(write, KEYS.bodies)}
    assert bodies == {KEYS.body(f"{BUNDLE}.00"): [0, 2], KEYS.body(f"{BUNDLE}.03"): [3]}
    assert [put.key for put in put_in(write, KEYS.jobs)] == [
        KEYS.job("q", 0, 7, f"{BUNDLE}.00"), KEYS.job("q", 0, 7, f"{BUNDLE}.03")
    ]


def test_a_piece_that_keeps_its_name_is_not_deleted() -> None:
    name = f"{BUNDLE}.00"
    at, body = unmodified(KEYS.job("q", 0, 7, name), 11), Record(KEYS.body(name), BODY, 1, 1, 1)
    write = moves.split(KEYS, SEAL, WHO, at, name, TOKEN, body, 3)
    assert not [op for op in write.ops if isinstance(op, Delete)]


def test_what_is_cancelled_counts_as_done() -> None:
    assert token_put(moves.cancel_some(WHO, WAITING, TOKEN, [1, 3])).done_bits == 0b1010


def test_a_due_job_stands_behind_those_before_it() -> None:
    assert token_put(moves.become_due(KEYS, WHO, SCHEDULED, BUNDLE, TOKEN, 12)).order == 12


@pytest.mark.parametrize("write", [
    moves.become_due(KEYS, WHO, SCHEDULED, BUNDLE, TOKEN, 12, TAIL),
    moves.release(KEYS, WHO, HELD_BACK, BUNDLE, AWAITING, 12, tail=TAIL),
])
def test_in_a_serial_queue_it_is_the_new_end(write: Write) -> None:
    assert TAIL in write.conditions and Put(TAIL.key, b"12") in write.ops


def test_handing_back_changes_nothing_of_the_token() -> None:
    claim = claim_of(Token("m:f", "q", 0, 7, 4, "sync", 1_000, 2, "1", 1, 1), 5)
    assert token_put(moves.hand_back(KEYS, WHO, CLAIMED, BUNDLE, claim)) == Token(
        "m:f", "q", 0, 7, 4, "sync", 1_000, 2, "1", 1, 1
    )


def test_a_takeover_makes_suspect_and_costs_no_attempt() -> None:
    token = token_put(moves.take_over(KEYS, WHO, CLAIMED, BUNDLE, CLAIM, lost=2))
    assert token.suspect and token.lost == 2 and token.attempt == CLAIM.attempt


def test_an_orphan_of_a_serial_queue_waits_at_its_place() -> None:
    claim = claim_of(TOKEN, 5, serial=True)
    token = token_put(moves.take_over(KEYS, WHO, CLAIMED, BUNDLE, claim, lost=0, due_ms=9_000))
    assert token.not_before == 9_000


def test_what_fails_together_is_retried_together() -> None:
    again = Token("m:f", "q", 0, 7, 4, "sync", 1_000, 2)
    whole = moves.retry(KEYS, SEAL, CLAIMED.key, BUNDLE, BODY, 0b1, [([1, 2, 3], again, 9_000)])
    assert token_put(whole, KEYS.scheduled).done_bits == 0b1
    assert not put_in(whole, KEYS.bodies) and KEYS.body(BUNDLE) not in [op.key for op in whole]
    parts = moves.retry(KEYS, SEAL, CLAIMED.key, BUNDLE, BODY, 0b1, [([1, 3], again, 9_000), ([2], again, 9_900)])
    assert {put.key: bits(decode_header(put.value)[0].indexes) for put in put_in(parts, KEYS.bodies)} == {
        KEYS.body(f"{BUNDLE}.01"): 0b1010, KEYS.body(f"{BUNDLE}.02"): 0b0100
    }
    assert all(decode(Token, put.value) is not None for put in put_in(parts, KEYS.scheduled))


def test_a_blocked_head_is_freed_for_its_first_attempt() -> None:
    token = Token("m:f", "q", 0, 7, 1, "sync", 1_000, 5, expires=2_000)
    blocked = token_put(moves.block(KEYS, CLAIMED.key, BUNDLE, token))
    assert blocked.blocked and blocked.attempt == 5
    freed = token_put(moves.retry_head(WHO, WAITING, blocked))
    assert not freed.blocked and freed.attempt == 1 and freed.not_before == 0
    assert freed.expires == 0       # a person wants it, however late


def test_what_failed_can_be_looked_at_and_run_again() -> None:
    shown, kept = moves.fail(
        KEYS, f"{BUNDLE}.00", 2, TOKEN, body=b"body", error="no", traceback="trace", node="n", at_s=3.0, reason="lost"
    )
    assert isinstance(shown, Put) and isinstance(kept, Put)
    assert decode(FailedRecord, shown.value) == FailedRecord(f"{BUNDLE}/2", "m:f", "q", "no", 1, "n", 3.0, "lost")
    failure = failure_in(kept.value)
    assert (failure.body, failure.traceback, decode(Token, failure.token)) == (b"body", "trace", TOKEN)


def test_reviving_waits_for_the_siblings_of_its_piece() -> None:
    write = moves.revive(KEYS, WHO, FAILED, KEYS.failure(BUNDLE, 0), f"{BUNDLE}.00", TOKEN, BODY)
    assert created(KEYS.body(f"{BUNDLE}.00"), 0) in write.conditions
    assert {Delete(FAILED.key), Delete(KEYS.failure(BUNDLE, 0))} < set(write.ops)


def test_results_are_named_by_the_attempt() -> None:
    put = moves.result(KEYS, SEAL, f"{BUNDLE}.01", [ResultEntry(1, "ok"), ResultEntry(3, "ok")], 8, 2)
    assert put.key == KEYS.result(BUNDLE, 1, 8) and put.lease == 2


def test_what_is_kept_of_finished_jobs_is_their_arguments() -> None:
    public, private = moves.finished(KEYS, SEAL, BUNDLE, [1, 2], CLAIM, 8, node="n", at_s=1.0, body=BODY)
    assert public.key == KEYS.finished_jobs("q", BUNDLE, 1, 8)
    assert decode_header(private.value)[0].indexes == [1, 2]


def test_guards_come_with_who_writes() -> None:
    for _, _, what in SAMPLES:
        assert not isinstance(what, Write) or all(isinstance(condition, Condition) for condition in what.conditions)
    assert encode(TOKEN) in [op.value for op in SAMPLES[0][2].ops if isinstance(op, Put)]  # type: ignore[union-attr]
