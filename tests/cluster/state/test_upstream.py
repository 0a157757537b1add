"""What has become of jobs that others wait for, from what is left of them."""

from __future__ import annotations

from rota.client.model import ResultEntry, Results
from rota.client.wire.codec import encode_results
from rota.client.wire.keyring import Keyring, Seal
from rota.cluster.ledger.ledger import Record
from rota.cluster.state.keys import Keys
from rota.cluster.state.upstream import DELETED, NOT_KEPT, judge, latest, sorted_out

KEYS, BUNDLE = Keys("c"), "0s8sf4s75de1-00000004"
OK, FAILED = ResultEntry(0, "ok", b"v"), ResultEntry(1, "failed", error="no")


def test_what_did_not_end_well_is_known_by_what_it_left() -> None:
    expired = ResultEntry(2, "expired")
    became = judge(0b1111, {0: OK, 1: FAILED, 2: expired}, {1}, alive=True)
    assert (list(became.well), list(became.badly)) == ([0], [1, 2])     # of 3 nothing is known yet
    assert list(judge(0b10, {1: FAILED}, set(), alive=True).badly) == []    # a person has it run again
    assert list(judge(0b10, {1: FAILED}, set(), alive=False).badly) == [1]  # or has deleted it
    assert judge(0b1, {}, set(), alive=False).well == {0: None}


def test_what_left_nothing_ended_well_unless_it_was_seen_to_fail() -> None:
    became = judge(0b111, {}, set(), alive=False)
    good, bad = sorted_out(became, 0b111, wanted=0b010, not_well=0b100)
    assert [entry.index for entry in good] == [0]
    assert [(entry.index, entry.error) for entry in bad] == [(1, NOT_KEPT), (2, DELETED)]


def test_the_last_outcome_counts_and_what_nobody_here_can_verify_is_none() -> None:
    ours, old = Seal(Keyring({"new": b"n" * 32}), "c"), Keyring({"old": b"o" * 32})
    again = ResultEntry(1, "ok", b"w")

    def record(entry: ResultEntry, keyring: Keyring, fence: int) -> Record:
        signed = encode_results(keyring.sign_results(Results(BUNDLE, [entry]), "c"))
        return Record(KEYS.result(BUNDLE, entry.index, fence), signed, 1, 1, 1)

    entries, hidden = latest(ours, BUNDLE, [
        record(FAILED, ours.keyring, 5), record(again, ours.keyring, 9), record(OK, old, 5),
        Record(KEYS.result(BUNDLE, 3, 5), encode_results(Results(BUNDLE, [ResultEntry(3, "ok")])), 1, 1, 1),
    ])
    assert {index: entry.status for index, entry in entries.items()} == {1: "ok"} and hidden == {0}
