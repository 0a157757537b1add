"""What `rota dev` tells of its jobs."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rota.cluster.boot import console
from rota.cluster.events.hub import Events
from rota.cluster.events.records import JobEnded


def ended(index: int, outcome: str = "ok", error: str = "", ran_s: float = 0.0) -> JobEnded:
    return JobEnded("k3f9q2m7xa5t-0000001f", index, "shop:look", "default", 1, outcome, error, ran_s)


async def test_a_line_a_job_and_no_flood(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    events, later = Events(), []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda delay_s, call: later.append(call))
    console.Console(cast(Any, SimpleNamespace(events=events)), ("shop",))
    events.emit(ended(0, ran_s=0.012))
    events.emit(ended(1, "failed", "ValueError: no"))
    for index in range(2, 1_000):
        events.emit(ended(index))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == console.LINES_MAX
    assert "12 ms  shop:look" in lines[0] and "FAILED" in lines[1] and lines[1].endswith("ValueError: no")
    (next_second,) = later
    next_second()
    assert "and more in this second: 950 ok" in capsys.readouterr().err
    events.emit(ended(1_000))
    assert "shop:look" in capsys.readouterr().err
