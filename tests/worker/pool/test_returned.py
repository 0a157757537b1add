"""What a job hands back: awaitables are awaited, generators refused, and waiting for another job fails for good."""

from __future__ import annotations

import pytest

from rota.client.model import Mode

from ..rig import Rig


async def test_whatever_is_awaitable_is_awaited() -> None:
    async with Rig.open(async_=5, app="wrapped") as rig:
        for task in ("hands_over", "hands_over_a_partial", "hands_over_twice", "ahands_over"):
            assert await rig.value(task, 41, app="wrapped") == 42, task
            assert await rig.value(task, 41, app="wrapped", mode="async") == 42, task
            assert await rig.value(task, 41, app="wrapped", mode="sync") == 42, task
        failed = await rig.run("fails_later", "no", app="wrapped")
        assert (failed.status, failed.error) == ("failed", "ValueError: no")


@pytest.mark.parametrize("task", ["generates", "agenerates"])
async def test_a_generator_has_not_run(task: str) -> None:
    async with Rig.open(async_=5, app="wrapped") as rig:
        outcome = await rig.run(task, 1, app="wrapped")
        assert outcome.status == "failed" and "nothing of it has run" in outcome.error


async def test_what_a_job_cannot_have_it_is_refused_once() -> None:
    async with Rig.open(async_=5, app="wrapped") as rig:
        outcome = await rig.run("looks_up", 1, app="wrapped")
        assert outcome.status == "failed" and "NotInJob: a job does not operate" in outcome.error


async def test_several_waits_at_once_with_a_time_out_suspend_the_job_as_one_does() -> None:
    async with Rig.open(async_=5, app="wrapped") as rig:
        assert (await rig.run("awaits_several", 1, app="wrapped")).status == "wait"


@pytest.mark.parametrize(("task", "mode"), [
    ("hands_a_handle", "sync"), ("hands_a_handle", "async"), ("ahands_a_handle", "sync"), ("ahands_a_handle", "async"),
])
async def test_a_handle_is_no_result_and_not_waited_for(task: str, mode: Mode) -> None:
    """To wait for it would begin the job anew, which enqueues another one, and so on."""
    async with Rig.open(async_=5, app="wrapped") as rig:
        outcome = await rig.run(task, 1, app="wrapped", mode=mode)
        assert outcome.status == "failed" and "a job handle belongs to its client" in outcome.error
