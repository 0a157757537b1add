"""What must not begin any more."""

from __future__ import annotations

import pytest

from rota.cluster.clock import SystemClock
from rota.cluster.ledger.ledger import Record
from rota.cluster.node.claims.held import Held
from rota.cluster.node.running.unwanted import unwanted
from rota.cluster.state.records import claim_of

from ..bench import BUNDLE, token

JOBS = [(0, b""), (1, b""), (2, b"")]


class Clock(SystemClock):
    def wall(self) -> float:
        return 100.0


def held(expires: int = 0) -> Held:
    return Held(9, BUNDLE, Record(b"", b"", 1, 1, 1), claim_of(token(3, expires=expires), 5), jobs=JOBS)


@pytest.mark.parametrize(("expires", "cancelled", "ended"), [
    (0, set(), []),
    (0, {1, 7}, [(1, "cancelled")]),
    (100_001, set(), []),
    (100_000, {1}, [(0, "expired"), (1, "expired"), (2, "expired")]),
])
def test_what_is_late_or_cancelled_ends(expires: int, cancelled: set[int], ended: list[tuple[int, str]]) -> None:
    found = unwanted(held(expires), JOBS, cancelled, Clock())
    assert [(outcome.index, outcome.status) for _, outcome in found] == ended
    assert all(key == 9 for key, _ in found)
