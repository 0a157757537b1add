"""Which tasks are slow and which are quick, by what was seen of them lately."""

from __future__ import annotations

from rota.cluster.master.dispatch.paces import PACE_S, Pace, Paces


def test_what_was_seen_counts_for_a_while() -> None:
    paces = Paces()
    assert paces.of("m:f", 0.0) is Pace.UNKNOWN
    paces.quick("m:f", 0.0)
    assert paces.of("m:f", PACE_S - 1) is Pace.QUICK and paces.of("m:f", PACE_S) is Pace.UNKNOWN


def test_a_quick_bundle_does_not_make_up_for_a_slow_one() -> None:
    paces = Paces()
    paces.slow("m:f", 0.0)
    paces.quick("m:f", 1.0)
    assert paces.of("m:f", 2.0) is Pace.SLOW
    paces.quick("m:f", PACE_S + 1)
    assert paces.of("m:f", PACE_S + 2) is Pace.QUICK
    paces.forget("m:f")
    assert paces.of("m:f", PACE_S + 2) is Pace.UNKNOWN


def test_what_took_long_alone_is_remembered_and_names_are_bounded() -> None:
    paces = Paces()
    paces.took_alone("m:f", 3.0)
    assert paces.alone_s("m:f") == 3.0 and paces.alone_s("m:g") == 0.0
    for number in range(1_000):
        paces.slow(f"m:{number}", float(number))
    assert len(paces) < 200
