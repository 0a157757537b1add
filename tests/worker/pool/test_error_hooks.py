"""Error hooks fire once for every final failure, wherever it is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from rota.worker.channel.frames import Work

from ..rig import BUNDLE, Rig, eventually


def told(notes: Path) -> list[str]:
    return sorted(line for line in notes.read_text().split() if "@" in line)


@pytest.mark.parametrize("async_", [0, 2])
async def test_once_for_each(async_: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = tmp_path / "notes"
    monkeypatch.setenv("HOOKS", str(notes))
    async with Rig.open(async_=async_, app="hooked") as rig:
        for task in ("too_slow", "crash", "fail", "no_such_task", "crash_twice", *(["acrash"] * bool(async_))):
            await rig.run(task, app="hooked")
        await rig.run("crash_twice", app="hooked", attempt=2)
        key = rig.submit("deaf", (), app="hooked")
        await rig.until(lambda: (key, 0) in rig.pool.running())
        rig.pool.cancel(key, 0)
        assert (await rig.outcome(key)).status == "cancelled"       # that is no failure
        lost = Work(0, BUNDLE, "hooked:lost", "default", "sync", 3, 0, 0.0, "pickle", [])
        rig.pool.report(lost, 5, "its node was lost three times while it ran")
        expected = sorted([
            "too_slow@1:TimeoutError", "crash@1:JobFailed", "fail@1:ValueError", "crash_twice@2:JobFailed",
            "no_such_task@1:RotaError", "lost@3:JobFailed", *(["acrash@1:JobFailed"] * bool(async_)),
        ])
        await eventually(lambda: len(told(notes)) >= len(expected))
    assert told(notes) == expected


async def test_a_hook_that_kills_its_runner_is_not_called_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    monkeypatch.setenv("HOOKS", str(notes))
    monkeypatch.setenv("HOOK_KILLS", "1")
    async with Rig.open(app="hooked") as rig:
        await rig.run("crash", app="hooked")
        await eventually(lambda: len(told(notes)) == 2)
        await rig.run("nothing", app="hooked")
    assert len(told(notes)) == 2
