"""Which outcomes may wait for others."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from rota.client.model import Outcome
from rota.cluster.ledger.ledger import Record
from rota.cluster.node.claims.held import Held
from rota.cluster.node.claims.table import Claims
from rota.cluster.node.outcomes.company import CALM_S, Company
from rota.cluster.state.records import claim_of

from ..bench import BUNDLE, KEYS, NODE, token


def bundle(**claim: Any) -> Held:
    record = Record(KEYS.claim(NODE, BUNDLE), b"", 5, 5, 1)
    return Claims().add(BUNDLE, record, replace(claim_of(token(), 5), **claim))


def free(task: str, queue: str) -> bool:
    return False


def test_what_came_in_a_stream_waits_and_nothing_else() -> None:
    company = Company(free)
    assert company.patience_s(bundle(calm=True)) == CALM_S
    assert company.patience_s(bundle()) == 0.0


@pytest.mark.parametrize("said", [{"serial": True}, {"unique": "k"}, {"weight": 2}, {"lost": 1, "orphanings": 1}])
def test_what_another_job_may_wait_for_does_not_wait(said: dict[str, Any]) -> None:
    assert Company(free).patience_s(bundle(calm=True, **said)) == 0.0


def test_what_is_limited_or_run_again_does_not_wait() -> None:
    held = bundle(calm=True)
    assert Company(lambda task, queue: (task, queue) == ("m:f", "q")).patience_s(held) == 0.0
    held.retries.append(Outcome(0, "failed"))
    assert Company(free).patience_s(held) == 0.0
