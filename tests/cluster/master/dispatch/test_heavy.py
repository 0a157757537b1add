"""Jobs that take several slots of a node."""

from __future__ import annotations

from rota.cluster.master.dispatch.commands import GiveClaim, Split
from rota.cluster.master.dispatch.heavy import WAIT_S

from ..table import KEYS, Table


def test_it_takes_as_many_slots_as_it_says() -> None:
    table = Table()
    table.member("n1", slots=4)
    table.job("heavy", weight=3)
    for number in range(4):
        table.job(f"light{number}")
    assert table.given() == [("heavy", "n1"), ("light0", "n1")]
    assert table.given() == []


def test_it_goes_where_so_many_are_free() -> None:
    table = Table()
    table.member("n1", slots=4)
    table.member("n2", slots=2)
    table.member("n3", slots=8)
    table.job("h1", weight=8)
    table.job("h2", weight=4)
    table.job("h3", weight=2)
    assert dict(table.given()) == {"h1": "n3", "h2": "n1", "h3": "n2"}


def test_heavier_than_any_node_it_waits_and_keeps_nobody_waiting() -> None:
    table = Table()
    table.member("n1", slots=4)
    table.job("heavy", weight=5)
    table.job("light")
    assert table.given() == [("light", "n1")]
    table.now += 10 * WAIT_S
    table.job("another")
    assert table.given() == [("another", "n1")]
    table.member("n2", slots=5)
    assert table.given() == [("heavy", "n2")]


def test_a_bundle_of_heavy_jobs_is_split_to_what_fits() -> None:
    table = Table()
    table.member("n1", slots=5)
    table.job("b", count=6, weight=2)
    (command,) = table.decide()
    assert isinstance(command, Split) and command.size == 2


def test_where_slots_come_free_one_by_one_a_node_is_kept_for_it() -> None:
    table = Table()
    table.member("n1", slots=2)
    lights = {name: table.job(name) for name in ("a", "b")}
    assert len(table.given()) == 2
    for name, token in lights.items():
        table.claimed("n1", name, token)
    heavy = table.job("heavy", weight=2)
    for name in ("c", "d", "e"):
        lights[name] = table.job(name)
    table.ended("n1", "a")
    given = [name for name, _ in table.given()]     # it has not waited for long
    assert given[0] == "c" and "heavy" not in given
    for name in given:
        table.claimed("n1", name, lights[name])
    table.now += WAIT_S
    for name in ("b", *given):
        assert table.given() == []                  # from here on the node is kept for it
        table.ended("n1", name)
    assert table.given() == [("heavy", "n1")]
    table.claimed("n1", "heavy", heavy)
    table.ended("n1", "heavy")
    assert sorted([*given, *(name for name, _ in table.given())]) == ["c", "d", "e"]


def test_only_slots_of_its_kind_are_kept_for_it() -> None:
    table = Table()
    table.member("n1", tasks={"m:f": "sync", "m:g": "async"}, capacity={"sync": 2, "async": 3}, spare={"sync": 1})
    light = table.job("a")
    assert table.given() == [("a", "n1")]
    table.claimed("n1", "a", light)
    table.job("heavy", weight=2)
    table.decide()
    table.now += WAIT_S
    table.decide()
    table.job("b", queue="other")
    table.job("c", queue="other", task="m:g", mode="async")
    table.job("wide", task="m:g", mode="async", weight=2)
    assert sorted(table.given()) == [("c", "n1"), ("wide", "n1")]
    table.now += WAIT_S
    assert table.given() == []                      # nor is a spare slot of its kind given away
    table.ended("n1", "a")
    assert table.given() == [("heavy", "n1")]


def test_a_node_whose_code_runs_it_otherwise_by_now_is_not_kept_for_it() -> None:
    table = Table()
    table.member("n1", capacity={"sync": 2, "async": 1})
    light = table.job("a")
    assert table.given() == [("a", "n1")]
    table.claimed("n1", "a", light)
    table.job("heavy", weight=2)
    table.decide()
    table.now += WAIT_S
    table.decide()
    table.job("b", task="m:g")
    assert table.given() == []
    table.member("n1", tasks={"m:f": "async", "m:g": "sync"}, capacity={"sync": 2, "async": 1})
    assert table.given() == [("b", "n1")]


def test_a_node_that_is_kept_for_nobody_any_more_is_for_all() -> None:
    table = Table()
    table.member("n1", slots=2)
    light = table.job("a")
    assert table.given() == [("a", "n1")]
    table.claimed("n1", "a", light)
    heavy = table.job("heavy", weight=2)
    table.decide()
    table.now += WAIT_S
    table.decide()
    table.job("b")
    assert table.given() == []
    table.delete(KEYS.job("q", 0, heavy.order, "heavy"))         # cancelled
    assert table.given() == [("b", "n1")]


def test_nothing_is_given_ahead_to_a_node_that_has_one() -> None:
    table = Table()
    table.member("n1", slots=2)
    node = table.picture.nodes["n1"]
    node._through["sync"].add(1_000, table.now)
    token = table.job("heavy", weight=2)
    assert table.given() == [("heavy", "n1")]
    table.claimed("n1", "heavy", token)
    for number in range(4):
        table.job(f"quick{number}")
    assert table.given() == [] and node.spare("sync") == 0
    table.ended("n1", "heavy")
    assert len(table.given()) > 2                   # now it is, by what it gets through


def test_a_whole_bundle_of_quick_jobs_does_not_go_beside_one() -> None:
    table = Table()
    table.member("n1", slots=4)
    heavy = table.job("heavy", weight=3)
    assert table.given() == [("heavy", "n1")]
    table.claimed("n1", "heavy", heavy)
    table.picture.paces.quick("m:g", table.now)
    table.job("b", count=5, task="m:g")
    assert table.split() == {"b": 1}


def test_a_new_master_counts_the_slots_of_claims() -> None:
    table = Table(is_open=False)
    table.member("n1", slots=4)
    token = table.job("heavy", weight=3)
    table.claimed("n1", "heavy", token)
    table.picture.open()
    table.job("h2", weight=2)
    table.job("light")
    assert [command.item.bundle for command in table.decide() if isinstance(command, GiveClaim)] == ["light"]


def test_labels_of_a_job_are_beside_those_of_its_task() -> None:
    table = Table()
    table.member("n1", labels=["gpu"])
    table.job("b1", requires=("gpu", "large"))
    table.job("b2", requires=("gpu",))
    table.job("b3")
    assert [name for name, _ in table.given()] == ["b2", "b3"]
    table.member("n2", labels=["gpu", "large"])
    assert table.given() == [("b1", "n2")]
