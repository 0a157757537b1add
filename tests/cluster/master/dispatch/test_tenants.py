"""Tenants take turns inside a queue."""

from __future__ import annotations

import pytest

from rota.cluster.ledger.ledger import Record
from rota.cluster.master.dispatch import queues
from rota.cluster.master.dispatch import tenants as tenants_module
from rota.cluster.master.dispatch.commands import GiveClaim, LoadPage
from rota.cluster.master.dispatch.tenants import KEPT, Tenants
from rota.cluster.state.records import TaskRecord, Token, encode

from ..table import KEYS, Table


def play(table: Table, jobs: dict[str, Token], rounds: int) -> list[str]:
    """What is given to one node of one slot, one after the other."""
    given = []
    for _ in range(rounds):
        for name, node in table.given():
            given.append(name)
            table.claimed(node, name, jobs[name])
            table.ended(node, name)
    return given


def test_who_has_enqueued_much_does_not_keep_others_waiting() -> None:
    table = Table()
    jobs: dict[str, Token] = {f"a{n}": table.job(f"a{n}", fair="ann") for n in range(6)}
    jobs |= {f"b{n}": table.job(f"b{n}", fair="bob") for n in range(2)}
    jobs["c0"] = table.job("c0")            # without a key: one tenant, too
    table.member("n1", slots=1)
    assert play(table, jobs, 9) == ["a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4", "a5"]


def test_jobs_count_not_bundles_and_slots_where_they_take_several() -> None:
    table = Table()
    jobs: dict[str, Token] = {
        "a0": table.job("a0", fair="ann", weight=3), "a1": table.job("a1", fair="ann", weight=3),
    }
    jobs |= {f"b{n}": table.job(f"b{n}", fair="bob") for n in range(5)}
    table.member("n1", slots=3)
    given = []
    for _ in range(12):
        for name, node in table.given():
            given.append(name)
            table.claimed(node, name, jobs[name])
        for name in list(table.picture.nodes["n1"].held):
            table.ended("n1", name)
    assert given[:2] == ["a0", "b0"] and given.index("a1") >= 3


def test_who_comes_late_has_saved_nothing_up() -> None:
    tenants = Tenants()
    for _ in range(5):
        tenants.given("ann", 10)
    assert tenants.turn("bob") == 40
    tenants.given("bob", 1)
    assert tenants.turn("bob") < tenants.turn("ann")
    tenants.given("bob", 60)
    assert tenants.turn("bob") > tenants.turn("ann")


def test_tenants_that_are_gone_are_forgotten() -> None:
    tenants = Tenants()
    for number in range(10 * KEPT):
        tenants.given(f"tenant {number}", 1)
        tenants.given("ann", 1)
    assert len(tenants) <= 2 * KEPT + 2


def test_of_too_many_that_come_once_the_half_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenants_module, "KEPT_MAX", 2 * KEPT)
    tenants = Tenants()
    for number in range(10 * KEPT):
        tenants.given(f"tenant {number}", 1 + number % 3)
        assert len(tenants) <= 2 * KEPT + 1


def test_priority_goes_first_whoever_it_is() -> None:
    table = Table()
    jobs: dict[str, Token] = {f"a{n}": table.job(f"a{n}", fair="ann", priority=5) for n in range(3)}
    jobs["b0"] = table.job("b0", fair="bob")
    table.member("n1", slots=1)
    assert play(table, jobs, 4) == ["a0", "a1", "a2", "b0"]


def test_a_limit_per_key_and_a_tenant_are_two_things() -> None:
    table = Table()
    table.put(KEYS.task("m:f"), encode(TaskRecord("sync", max_per_key=1)))
    jobs = {f"a{n}": table.job(f"a{n}", fair="ann", key="k") for n in range(2)}
    jobs |= {"b0": table.job("b0", fair="bob", key="k"), "b1": table.job("b1", fair="bob", key="other")}
    table.member("n1", slots=4)
    assert sorted(name for name, _ in table.given()) == ["a0", "b1"]
    table.claimed("n1", "a0", jobs["a0"])
    table.ended("n1", "a0")
    assert [name for name, _ in table.given()] == ["a1"]
    table.claimed("n1", "a1", jobs["a1"])
    table.ended("n1", "a1")
    assert [name for name, _ in table.given()] == ["b0"]


def test_a_tenant_behind_a_long_backlog_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies behind what the master knows of a queue is read on, though nothing of it is needed yet."""
    monkeypatch.setattr(queues, "WINDOW_MAX", 40)
    table = Table(is_open=False)
    tokens = {f"a{n:03}": Token("m:f", "q", 0, n, 1, "sync", 0, fair="ann") for n in range(300)}
    tokens["b"] = Token("m:f", "q", 0, 300, 1, "sync", 0, fair="bob")
    stored = [
        Record(KEYS.job("q", 0, token.order, name), encode(token), 5, 5, 1) for name, token in tokens.items()
    ]
    table.picture.expect_page("q", 0)
    table.picture.page("q", 0, stored[:30], more=True)
    table.member("n1", slots=1)
    table.picture.open()
    given: list[str] = []
    for _ in range(100):
        for command in table.decide():
            if isinstance(command, LoadPage):
                rest = [record for record in stored if record.key > command.after]
                table.picture.page("q", 0, rest[:30], more=len(rest) > 30)
            elif isinstance(command, GiveClaim):
                name = command.item.bundle
                given.append(name)
                stored = [record for record in stored if record.key != command.item.key]
                table.settle(command)
                table.claimed("n1", name, tokens[name])
                table.now += 1.0            # these take long: nothing is given ahead
                table.ended("n1", name)
        queue = table.picture.queues.get("q")
        assert queue is None or queue.size <= 70
    assert "b" in given[:30]
    assert [name for name in given if name != "b"] == sorted(name for name in given if name != "b")     # none is passed
