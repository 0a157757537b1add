"""Which outcomes may wait for others."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from rota.client.model import Outcome
from rota.cluster.ledger.ledger import Record
from rota.cluster.node.claims.held import Held
from rota.cluster.node.claims.table import Claims
from rota.cluster.node.outcomes.company import BUSY_S, CALM_S, Company
from rota.cluster.state.records import claim_of

from ..bench import BUNDLE, KEYS, NODE, OTHER, token


def record(bundle: str) -> Record:
    return Record(KEYS.claim(NODE, bundle), b"", 5, 5, 1)


def bundles(**claim: Any) -> tuple[Claims, Held, Held]:
    """Two that lie here; what is said of the first."""
    table = Claims()
    return (
        table, table.add(BUNDLE, record(BUNDLE), replace(claim_of(token(), 5), **claim)),
        table.add(OTHER, record(OTHER), claim_of(token(), 5)),
    )


def free(task: str, queue: str) -> bool:
    return False


def test_what_is_the_last_here_waits_for_nothing() -> None:
    table, first, second = bundles()
    company = Company(table, free)
    company.ended(first)
    assert company.patience_s(first) == BUSY_S      # the other's will follow
    company.ended(second)
    assert company.patience_s(second) == 0.0
    for held in (first, second):
        table.forget(held)
        company.left(held)
    held = table.add(BUNDLE, record(BUNDLE), claim_of(token(), 5))
    company.ended(held)
    assert company.patience_s(held) == 0.0


def test_what_came_in_a_stream_waits_also_alone() -> None:
    table, first, second = bundles(calm=True)
    company = Company(table, free)
    company.ended(first)
    company.ended(second)
    assert company.patience_s(first) == CALM_S


@pytest.mark.parametrize("said", [{"serial": True}, {"unique": "k"}, {"weight": 2}, {"lost": 1, "orphanings": 1}])
def test_what_another_job_may_wait_for_does_not_wait(said: dict[str, Any]) -> None:
    table, first, _ = bundles(calm=True, **said)
    assert Company(table, free).patience_s(first) == 0.0


def test_what_is_limited_or_run_again_does_not_wait() -> None:
    table, first, _ = bundles(calm=True)
    assert Company(table, lambda task, queue: (task, queue) == ("m:f", "q")).patience_s(first) == 0.0
    first.retries.append(Outcome(0, "failed"))
    assert Company(table, free).patience_s(first) == 0.0
