"""Whether the store serves this node."""

from __future__ import annotations

from rota.client.errors import LedgerDenied, LedgerUnavailable
from rota.cluster.clock import SystemClock
from rota.cluster.events.hub import Events
from rota.cluster.events.records import StoreBack, StoreLost
from rota.cluster.node.membership.reach import PATIENCE_S, Reach


class Clock(SystemClock):
    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_a_node_is_not_ready_when_the_store_has_been_silent_for_long() -> None:
    clock = Clock()
    reach = Reach(clock, Events())
    reach.failed(LedgerUnavailable("no answer"))
    assert reach.why_not(0.0) is None                   # it may pass
    clock.now += PATIENCE_S + 1
    assert "no answer" in (reach.why_not(0.0) or "")
    reach.served()
    assert reach.why_not(0.0) is None


def test_a_write_that_waits_for_long_says_so_too() -> None:
    reach = Reach(Clock(), Events())
    assert reach.why_not(PATIENCE_S) is None
    assert "no write" in (reach.why_not(PATIENCE_S + 1) or "")


def test_only_who_is_refused_for_long_is_shut_out() -> None:
    clock = Clock()
    reach = Reach(clock, Events())
    reach.failed(LedgerUnavailable("no answer"))
    clock.now += PATIENCE_S + 1
    assert not reach.shut_out                           # a store that is away serves nobody else, either
    reach.failed(LedgerDenied("no permission"))
    assert not reach.shut_out
    clock.now += PATIENCE_S + 1
    assert reach.shut_out
    reach.failed(LedgerUnavailable("no answer"))        # it does not refuse: it is away again
    assert not reach.shut_out


def test_it_is_said_once_until_the_store_is_back() -> None:
    events, said = Events(), list[object]()
    events.listen(said.append, [StoreLost, StoreBack])
    clock = Clock()
    reach = Reach(clock, events)
    for _ in range(3):
        reach.failed(LedgerUnavailable("no answer"))
    clock.now += 2
    reach.served()
    reach.served()
    assert said == [StoreLost("no answer"), StoreBack(2.0)]
