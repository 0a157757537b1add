from __future__ import annotations

from rota.cluster.recent import Recent


def test_what_came_first_is_forgotten_first() -> None:
    recent: Recent[str, int] = Recent(2)
    for number, name in enumerate("abc"):
        recent.put(name, number)
    assert "a" not in recent and "b" in recent and recent.get("c", -1) == 2 and len(recent) == 2
    recent.put("b", 9)          # is the newest now
    recent.put("d", 3)
    assert recent.get("b", -1) == 9 and "c" not in recent
    recent.drop("b")
    recent.drop("never there")
    assert recent.get("b", -1) == -1 and len(recent) == 1
