"""Who waits for jobs of which bundle, and which bundles are to be looked at."""

from __future__ import annotations

from rota.cluster.master.duties.awaited import AGAIN_MS, ALARMS_MORE, Alarms, Awaited, Waiting


def waiting(name: str, **left: int) -> Waiting:
    return Waiting(name.encode(), name, 1, None, dict(left), {})


def put(awaited: Awaited, one: Waiting) -> Waiting:
    awaited.put(one)
    awaited.begin(one)
    return one


def test_what_waits_is_looked_at_from_when_it_begins() -> None:
    awaited, one = Awaited(), waiting("w", a=0b11, b=0b1)
    awaited.put(one)
    assert not awaited and not awaited.to_look
    awaited.begin(one)
    assert "a" in awaited and list(awaited.to_look) == ["a", "b"] and awaited.of("a") == [one]


def test_it_is_ready_when_it_has_got_everything() -> None:
    awaited = Awaited()
    one = put(awaited, waiting("w", a=0b11, b=0b1))
    awaited.has_got(one, "a", 0b01)
    assert one.left == {"a": 0b10, "b": 0b1}
    awaited.has_got(one, "a", 0b10)
    assert "a" not in awaited and not awaited.ready
    awaited.has_got(one, "b", 0b1)
    assert list(awaited.ready) == [b"w"] and not awaited


def test_what_waits_for_nothing_is_ready_at_once_and_what_is_forgotten_waits_for_nobody() -> None:
    awaited = Awaited()
    put(awaited, waiting("now"))
    assert list(awaited.ready) == [b"now"]
    one = put(awaited, waiting("w", a=1))
    assert awaited.forget(b"w") is one and "a" not in awaited
    assert awaited.forget(b"now") is not None and not awaited.ready and awaited.forget(b"w") is None


def test_all_are_looked_at_again_in_turn() -> None:
    awaited = Awaited()
    for name in "abcde":
        put(awaited, waiting(f"w{name}", **{name: 1}))
    awaited.to_look.clear()
    seen: list[str] = []
    for _ in range(3):
        awaited.look_again(2)
        seen += awaited.to_look
        awaited.to_look.clear()
    assert sorted(seen) == list("abcde")


def test_alarms_ring_at_their_time_until_they_are_forgotten() -> None:
    alarms = Alarms()
    for number in range(1_000):
        alarms.set(b"%d" % number, 10_000 + number)
        alarms.set(b"%d" % number, 10_000 + number)
        if number % 100:
            alarms.forget(b"%d" % number)
    assert len(alarms._heap) < 2 * 10 + ALARMS_MORE + 2
    assert alarms.next_ms == 10_000 and not alarms.rung(9_999)
    assert alarms.rung(10_250) == [b"0", b"100", b"200"]
    alarms.forget(b"0")
    assert alarms.rung(10_300) == [b"300"] and alarms.rung(10_250 + AGAIN_MS)[-2:] == [b"100", b"200"]
    alarms.set(b"100", 20_000)          # it waits anew
    assert b"100" not in alarms.rung(19_999) and b"100" in alarms.rung(20_000)
    for number in range(1_000):
        alarms.forget(b"%d" % number)
    assert alarms.next_ms is None
