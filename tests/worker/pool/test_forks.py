"""`os.fork()` in a job: the child leaves like any child, and nothing of it reaches the node."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ..rig import Rig

PYTHONS_OWN = {"3": 3, "259": 3, "0": 0, "exit": 0, "text": 1, "raise": 1, "retry": 1, "_exit": 9, "return": 0}
"""The status with which a child of plain Python ends."""


@pytest.mark.parametrize("task", ["fork", "afork"])
async def test_the_childs_status_is_its_own(task: str, capfd: pytest.CaptureFixture[str]) -> None:
    async with Rig.open(async_=10, app="forking") as rig:
        for how, status in PYTHONS_OWN.items():
            assert await rig.value(task, how, app="forking") == status, how
        assert len(rig.outcomes) == len(PYTHONS_OWN)
    err = capfd.readouterr().err
    assert err.count("ValueError: in the child") == 1 and "bad\n" in err
    assert "rota.job" not in err            # it is no failure of the job: no word of it, and no hook


async def test_processes_of_the_standard_library() -> None:
    async with Rig.open(app="forking") as rig:
        assert await rig.value("with_processes", 3, app="forking") == [3, 3]


@pytest.mark.parametrize("how", ["direct", "subtask", "raise"])
async def test_a_child_that_comes_back_to_the_loop_leaves_it(how: str, tmp_path: Path) -> None:
    """The other jobs on the loop, and the node's frames, are its parent's."""
    notes = tmp_path / "notes"
    async with Rig.open(sync=0, async_=10, app="forking") as rig:
        beside = rig.submit("afork", *(("3",) for _ in range(5)), app="forking")
        assert await rig.value("afork_and_await", str(notes), how, app="forking") == 1
        async with asyncio.TaskGroup() as group:
            for index in range(5):
                group.create_task(rig.outcome(beside, index))
        assert all(outcome.status == "ok" for outcome in rig.outcomes.values())
        (pid,) = rig.pids()
    assert set(notes.read_text().split()) == {str(pid)}
