"""Batches in real runners: what becomes of their jobs when the runner dies, or the function does not end."""

from __future__ import annotations

from pathlib import Path

from rota.client.calls import pickling

from ..rig import Rig


async def test_one_call_gets_the_jobs_of_several_bundles() -> None:
    async with Rig.open(sync=0, async_=20, app="batches") as rig:
        keys = [rig.submit("double", (number,), app="batches") for number in range(5)]
        values = [await rig.outcome(key) for key in keys]
        assert [pickling.load_value(one.codec, one.value) for one in values] == [0, 2, 4, 6, 8]
        assert await rig.value("whose", 1, app="batches") is True


async def test_a_runner_that_dies_loses_none_of_them(tmp_path: Path) -> None:
    async with Rig.open(sync=0, async_=20, app="batches") as rig:
        key = rig.submit("dies_once", *((str(tmp_path / "flag"),),) * 4, app="batches")
        outcomes = [await rig.outcome(key, index) for index in range(4)]
        assert {outcome.status for outcome in outcomes} <= {"ok", "retry"}, outcomes
        assert any(outcome.status == "ok" for outcome in outcomes)


async def test_a_plain_function_that_does_not_end_is_killed_and_all_of_its_jobs_pay() -> None:
    async with Rig.open(sync=0, async_=20, app="batches") as rig:
        key = rig.submit("stuck", *((number,) for number in range(3)), app="batches")
        outcomes = [await rig.outcome(key, index) for index in range(3)]
        assert all(one.status == "failed" and "TimeoutError" in one.error for one in outcomes), outcomes
        assert await rig.value("double", 2, app="batches") == 4
