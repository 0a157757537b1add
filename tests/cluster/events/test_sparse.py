"""Lines that would come again and again."""

from __future__ import annotations

import logging

import pytest

from rota.cluster.events import sparse


def test_the_first_at_once_then_one_a_minute_with_a_count(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(sparse.time, "monotonic", lambda: now)
    place = sparse.Sparse(logging.getLogger("rota.test"))
    for number in range(115):
        place.warn("no answer from %s", f"e{number}")
        now += 0.5
    assert [record.getMessage() for record in caplog.records] == ["no answer from e0"]
    now += 5
    place.warn("no answer from %s", "e115")
    assert caplog.records[-1].getMessage() == "no answer from e115 (and 114 more like it in the last 60 s)"
