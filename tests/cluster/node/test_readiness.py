"""Why a node should be given nothing now."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from rota.client.errors import LedgerUnavailable
from rota.cluster.clock import SystemClock
from rota.cluster.events.hub import Events
from rota.cluster.node.membership.reach import PATIENCE_S, Reach
from rota.cluster.node.membership.standing import Standing
from rota.cluster.node.readiness import Readiness


class Clock(SystemClock):
    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Stage:
    """A node that is ready, part by part."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.standing, self.reach = Standing(), Reach(self.clock, Events())
        self.membership: Any = SimpleNamespace(is_sure=True, may_start=lambda: True, joining="")
        self.standing.membership = self.membership
        registered, listed = asyncio.Event(), asyncio.Event()
        registered.set()
        listed.set()
        self.life: Any = SimpleNamespace(
            context=SimpleNamespace(commits=SimpleNamespace(waits_s=0.0)), intake=SimpleNamespace(full=None),
            admission=SimpleNamespace(registered=registered),
        )
        self.identities: Any = SimpleNamespace(life=self.life)
        self.runners: Any = SimpleNamespace(trouble=None, stand=True)
        self.directory: Any = SimpleNamespace(listed=listed)
        self.readiness = Readiness(self.standing, self.identities, self.reach, self.runners, self.directory)

    @property
    def why(self) -> str:
        return self.readiness.why_not() or ""


def test_a_node_that_can_work_is_ready() -> None:
    assert Stage().readiness.why_not() is None


def test_each_thing_that_keeps_it_from_work_is_named() -> None:
    stage = Stage()
    stage.directory.listed.clear()
    assert "listing the cluster" in stage.why
    stage.life.admission.registered.clear()
    assert "registering its tasks" in stage.why
    stage.life.intake.full = "the store is nearly full"
    assert stage.why == "the store is nearly full"
    stage.runners.stand = False
    assert "no runner stands" in stage.why
    stage.runners.trouble = "the app cannot be imported"
    assert stage.why == "the app cannot be imported"
    stage.reach.failed(LedgerUnavailable("away"))
    stage.clock.now += PATIENCE_S + 1
    assert "has not served" in stage.why
    stage.membership.may_start = lambda: False
    assert "nothing is begun" in stage.why
    stage.membership.is_sure = False
    assert "nothing runs here" in stage.why
    stage.identities.life, stage.membership.joining = None, "another node has its name"
    assert "another node has its name" in stage.why
    stage.standing.leaving.set()
    assert stage.why == "leaving"
