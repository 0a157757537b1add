"""Levels of persistence below `durable`: what they cannot be combined with, and where such a job may run."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from rota.client.errors import InvalidJob, Overloaded
from rota.client.model import Enqueue, Terms
from rota.client.options.rates import rate
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.node.intake.levels import Levels
from rota.cluster.node.membership.own_record import OwnRecord
from rota.cluster.state.directory import Directory
from rota.cluster.state.records import Member, QueueRecord, TaskRecord

from ..bench import BUNDLE, KEYS

HERE = Member("", ["*"], {"m:f": "async"}, {"async": 2, "sync": 0}, "3.11", "0", 0.0)
ELSEWHERE = Member("", ["*"], {"m:g": "async"}, {"async": 2}, "3.11", "0", 0.0)
AT_ONCE = Enqueue(BUNDLE, "m:f", "q", 1, "async", b"", level="none")


def levels(task: TaskRecord | None = None, member: Member = HERE) -> Levels:
    directory = Directory(MemoryLedger(), KEYS)
    directory.members.update(here=member, there=ELSEWHERE)
    if task is not None:
        directory.tasks["m:f"] = task
    context: Any = None
    return Levels(directory, OwnRecord(context, context, member))


def test_a_durable_job_waits_for_anything() -> None:
    limited = levels(TaskRecord("async", max_concurrency=1))
    assert limited.refusal(replace(AT_ONCE, level="durable", delay_s=5.0), QueueRecord(serial=True)) is None


@pytest.mark.parametrize("terms", [
    Terms(unique="k"), Terms(expires_s=5.0), Terms(requires=("gpu",)), Terms(weight=2), Terms(fair_key="a"),
])
def test_what_starts_at_once_keeps_no_terms(terms: Terms) -> None:
    assert "stored durably" in str(levels().refusal(replace(AT_ONCE, terms=terms), None))


@pytest.mark.parametrize(("task", "settings", "delay_s"), [
    (TaskRecord("async", max_concurrency=1), None, 0.0), (TaskRecord("async", max_per_key=1), None, 0.0),
    (TaskRecord("async", rate=rate("1/second", "rate")), None, 0.0), (TaskRecord("async", weight=2), None, 0.0),
    (None, QueueRecord(paused=True), 0.0), (None, None, 1.0),
])
def test_nor_does_it_wait(task: TaskRecord | None, settings: QueueRecord | None, delay_s: float) -> None:
    assert "at once" in str(levels(task).refusal(replace(AT_ONCE, delay_s=delay_s), settings))
    assert levels(TaskRecord("async")).refusal(AT_ONCE, QueueRecord()) is None


def test_it_runs_in_the_mode_of_this_nodes_code_or_not_here() -> None:
    assert levels().own_mode(AT_ONCE) == "async"
    assert levels(member=ELSEWHERE).own_mode(AT_ONCE) is None
    assert levels(member=replace(HERE, queues=["other"])).own_mode(AT_ONCE) is None
    assert levels(member=replace(HERE, capacity={"async": 0})).own_mode(AT_ONCE) is None


def test_who_cannot_run_it_says_whether_others_can() -> None:
    assert levels().not_here(AT_ONCE) is None
    assert isinstance(levels(member=ELSEWHERE).not_here(replace(AT_ONCE, task="m:h")), InvalidJob)
    others = levels(member=HERE).not_here(replace(AT_ONCE, task="m:g"))
    assert isinstance(others, Overloaded) and "others do" in str(others)
