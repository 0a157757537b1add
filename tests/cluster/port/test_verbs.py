"""What people do to a cluster leaves a line in the log, and a flood of it does not."""

from __future__ import annotations

import logging

import pytest

from rota.cluster.port import verbs


def test_so_many_lines_a_minute(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    lines = verbs.Allowance(3)
    assert [lines.take() for _ in range(5)] == [True, True, True, False, False]
    now += 61.0
    with caplog.at_level(logging.INFO):
        assert lines.take()
    assert "2 more lines" in caplog.text
