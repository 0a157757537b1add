"""A runner's words are held to their bounds: user code shares its process, and can say anything."""

from __future__ import annotations

import pytest

from ..rig import Rig


@pytest.mark.parametrize("task", ["forge", "aforge"])
async def test_outcomes_that_no_runner_makes_fail_their_job(task: str) -> None:
    async with Rig.open(async_=20, app="forging") as rig:
        for what, words in {
            "inf": "a delay of inf s", "nan": "a delay of nan s", "past": "a delay of -1e+18 s",
            "late": "a delay of 1e+300 s", "value": "a result of 20,000,000 bytes",
            "error": "an error of 20,000,000 characters", "traceback": "a traceback of 20,000,000 characters",
        }.items():
            if task == "aforge" or what == "inf":        # (the plain function goes on, and nothing comes after it)
                outcome = await rig.run(task, what, app="forging")
                assert outcome.status == "failed" and words in outcome.error and len(outcome.error) < 200


async def test_an_outcome_for_the_next_job_ends_the_forger() -> None:
    async with Rig.open(app="forging") as rig:
        forger = rig.submit("forge_for_the_next", (), app="forging")
        after = rig.submit("forge_tasks", (), app="forging")
        assert (await rig.outcome(forger)).error == "runner died (a job reported the end of another one)"
        outcome = await rig.outcome(after)
        assert outcome.status == "ok" and outcome.value != b"forged"
        assert "forging:forge" in rig.pool.tasks        # tasks are told before there are jobs, and not by them


@pytest.mark.parametrize(("task", "what", "words"), [
    ("wait_for_nothing", [], "gave no delay"),
    ("odd", ["snooze"], "inf is not a delay"),
    ("odd", ["retry"], "inf is not a delay"),
    ("odd", ["own"], "OwnRetry"),
    ("odd", ["unprintable"], "Unprintable: (its text cannot be had)"),
])
async def test_exceptions_of_all_kinds_cost_one_job(task: str, what: list[str], words: str) -> None:
    async with Rig.open(app="forging") as rig:
        (pid,) = rig.pids()
        outcome = await rig.run(task, *what, app="forging")
        assert words in outcome.error and outcome.status == ("retry" if what == ["unprintable"] else "failed")
        assert rig.pids() == [pid]
