"""What jobs say while they run, through real runners."""

from __future__ import annotations

from typing import Any

import pytest

import rota

from ..rig import Rig


@pytest.mark.parametrize("task", ["plain", "coroutine"])
async def test_the_last_word_comes_before_the_outcome(task: str) -> None:
    """And a job that says much says it in a few frames."""
    async with Rig.open(async_=1, app="telling") as rig:
        said = rig.said
        key = rig.submit(task, (3_000,), app="telling")
        assert (await rig.outcome(key)).status == "ok"
        progress = [one.progress for one in said if one.progress is not None]
        assert progress[-1][0] == 3_000 and 1 <= len(progress) < 60
        assert all((one.key, one.index) == (key, 0) for one in said)
        lines = [line for one in said for line in one.lines]
        if task == "coroutine":
            assert lines == []
        else:
            assert progress[-1][:3] == (3_000, 3_000, "at 2999")
            assert [line.text for line in lines[-2:]] == ["line 2998 of many", "line 2999 of many"]
            assert lines[-1].level == "INFO" and all(len(one.lines) <= 3 for one in said)


async def test_a_job_that_is_silent_afterwards_has_said_it() -> None:
    async with Rig.open(app="telling") as rig:
        said = rig.said
        rig.submit("slow", (600,), app="telling")
        await rig.until(lambda: any(one.progress and one.progress[2] == "the last word" for one in said))


@pytest.mark.parametrize("value", [-1, float("nan"), "half", True])
async def test_what_is_no_progress(value: Any) -> None:
    async with Rig.open(app="telling") as rig:
        outcome = await rig.run("wrong", value, app="telling")
        assert outcome.status == "failed" and "a number from 0 on" in outcome.error


def test_outside_of_a_job() -> None:
    with pytest.raises(RuntimeError, match="no job is running"):
        rota.progress(1)
