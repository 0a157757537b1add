"""`async def` jobs share a process: what one of them does to it is not held against the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..rig import Rig


@pytest.mark.parametrize(("way", "error"), [
    ("subtask", "SystemExit: config missing"),
    ("group", "SystemExit: config missing"),
    ("thread", "SystemExit: config missing"),
    ("interrupt", "KeyboardInterrupt"),
    ("callback", ""),
    ("stop", ""),
])
async def test_what_would_end_a_program_ends_one_job_at_most(way: str, error: str) -> None:
    async with Rig.open(sync=0, async_=10, app="loops") as rig:
        beside = rig.submit("clean_up", ("", 0), app="loops")
        await rig.until(lambda: rig.pool.running() == [(beside, 0)])
        pids = rig.pids()
        outcome = await rig.run("leave_by", way, app="loops")
        assert (outcome.status, outcome.error) == ("failed" if error else "ok", error)
        assert rig.pids() == pids and rig.pool.running() == [(beside, 0)]
        assert await rig.value("leave_by", "", app="loops") == ""


async def test_a_job_is_cancelled_once_and_then_has_its_grace(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with Rig.open(sync=0, async_=10, app="loops") as rig:
        key = rig.submit("clean_up", (str(notes), 1.2), app="loops")
        await rig.until(lambda: rig.pool.running() == [(key, 0)])
        rig.pool.cancel(key, 0)
        rig.pool.cancel(key, 0)
        assert (await rig.outcome(key)).status == "ok"
    assert notes.read_text().split() == ["clean"]
