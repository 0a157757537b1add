"""What a node keeps of bundles that are slow, and what it lets others have."""

from __future__ import annotations

import pytest

from rota.cluster.node.claims import slow
from rota.cluster.node.claims.slow import Pace, Share, is_soon_over, share
from rota.cluster.state.throughput import SLICE_S

from ..bench import BUNDLE

TEN = list(range(10))


def test_what_is_soon_over_stays() -> None:
    assert is_soon_over(slow.KEEP_SLICES * 3, 3) and not is_soon_over(slow.KEEP_SLICES * 3 + 1, 3)
    assert not is_soon_over(1, 0)


def share_of(
    jobs: list[int], *, bundle: str = BUNDLE, pending: int, through: int, busy: bool = False, late: bool = False,
    settled: bool = True,
) -> Share:
    return share(bundle, jobs, pending=pending, through=through, busy=busy, late=late, settled=settled)


@pytest.mark.parametrize(("through", "busy", "late", "expected"), [
    (0, True, False, Share(True, [], TEN, 10)),             # nothing gets through: all of it goes, as it is
    (0, False, False, Share(False, [0], TEN[1:], 1)),       # nothing has ended yet, but it runs: one stays
    (1, False, False, Share(False, [0], TEN[1:], 1)),
    (2, False, False, Share(False, TEN, [], 10)),           # soon over: not worth the pieces
    (2, True, False, Share(False, TEN, [], 10)),
    (2, True, True, Share(True, [], TEN, 10)),              # it has been said for long enough that it is soon over
    (2, False, True, Share(False, [0, 1], TEN[2:], 2)),     # but there are slots
])
def test_of_a_bundle_that_has_not_begun(through: int, busy: bool, late: bool, expected: Share) -> None:
    assert share_of(TEN, pending=10, through=through, busy=busy, late=late) == expected


def test_what_has_outcomes_on_their_way_goes_in_pieces() -> None:
    got = share_of(TEN, pending=10, through=0, busy=True, settled=False)
    assert (got.whole, got.keep, got.back) == (False, [], TEN)


def test_pieces_are_of_the_size_that_gets_through() -> None:
    many = list(range(60))
    got = share_of(many, pending=60, through=4)
    assert (got.whole, got.keep, got.back, got.size) == (False, many[:4], many[4:], 4)


def test_where_some_have_begun_the_bundle_stays_and_the_others_go() -> None:
    got = share_of(TEN, pending=11, through=0, busy=True)
    assert (got.whole, got.keep, got.back) == (False, [], TEN)


def test_a_piece_never_takes_the_name_of_its_bundle() -> None:
    """The first job of a piece would make a piece of the same name."""
    got = share_of([3, 4, 5], bundle=f"{BUNDLE}.03", pending=4, through=0, busy=True)
    assert got.keep == [3] and got.back == [4, 5]


def test_the_pace_fades() -> None:
    pace = Pace()
    for _ in range(5):
        pace.note_ended("sync", 1, 10.0)
    assert pace.through("sync", 10.0) == 5 and pace.through("async", 10.0) == 0
    assert pace.through("sync", 10.0 + 20 * SLICE_S) == 0


def test_what_comes_back_is_given_more_time_each_time() -> None:
    pace = Pace()
    waits = []
    for _ in range(slow.DOUBLINGS_MAX + 3):
        waits.append(pace.patience_s(BUNDLE))
        pace.note_given_back(BUNDLE)
    assert waits[:3] == [SLICE_S, 2 * SLICE_S, 4 * SLICE_S] and waits[-1] == waits[-2] == SLICE_S * 8
    assert pace.patience_s("another") == SLICE_S
