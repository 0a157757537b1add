"""What waits because of a rate, and until when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from rota.client.options.rates import rate
from rota.cluster.master.dispatch.waits import Waits
from rota.cluster.state.records import QueueRecord, TaskRecord, Token, encode

from ..table import KEYS, Table

TOKEN = Token("m:f", "q", 0, 1, 1, "sync", 0, key="k")
NOW_MS = 1_000_000


def stage(woken: list[str]) -> tuple[Table, Waits]:
    table = Table()
    table.put(KEYS.task("m:f"), encode(TaskRecord("sync", rate_per_key=rate("1/minute", "rate"))))
    table.put(KEYS.queue("q"), encode(QueueRecord(rate=rate("1/minute", "rate"))))
    waits = Waits(table.picture.rates, table.picture.limits, woken.append)
    waits.begin(NOW_MS)
    return table, waits


def take(table: Table) -> None:
    """A job of it begins: both of its rates are used up for a minute."""
    rates, queue = table.picture.rates, table.picture.queue("q")
    taken = rates.take("m:f", TOKEN.rated_by, "q", queue.settings, 1)
    rates.settled(taken, 1, NOW_MS, begun=True)


def test_a_queue_at_its_rate_rests_and_is_woken_when_it_is_due() -> None:
    woken: list[str] = []
    table, waits = stage(woken)
    queue = table.picture.queue("q")
    take(table)
    assert waits.rests(queue)
    (due,) = [ms for ms in waits.times if ms > NOW_MS][:1]
    waits.begin(due - 1)
    assert not woken
    waits.begin(due)
    assert woken == ["q"]


def test_a_lane_whose_key_is_at_its_rate_is_parked() -> None:
    table, waits = stage([])
    parked: list[object] = []
    lane: Any = SimpleNamespace(family=SimpleNamespace(park=parked.append, unpark=parked.remove))
    token = Token("m:f", "q", 0, 1, 1, "sync", 0, key="k")
    rates = table.picture.rates
    rates.settled(rates.take("m:f", token.rated_by, "q", QueueRecord(), 1), 1, NOW_MS, begun=True)
    assert waits.parks(token, lane) and parked == [lane]
    waits.happened((("key", "m:f", token.rated_by),))
    assert parked == []
