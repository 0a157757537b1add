"""`async def` jobs share a process: what one of them does to it is not held against the others."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path

import pytest

from rota.client.calls.pickling import load_value
from rota.client.model import Options

from ..rig import Rig, kill


def submit(rig: Rig, task: str, *calls: tuple[object, ...], timeout_s: float | None = None) -> int:
    options = Options() if timeout_s is None else Options(timeout_s=timeout_s)
    return rig.submit(task, *calls, app="loops", options=options)


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
        beside = submit(rig, "clean_up", ("", 0))
        await rig.until(lambda: rig.pool.running() == [(beside, 0)])
        pids = rig.pids()
        outcome = await rig.run("leave_by", way, app="loops")
        assert (outcome.status, outcome.error) == ("failed" if error else "ok", error)
        assert rig.pids() == pids and rig.pool.running() == [(beside, 0)]
        assert await rig.value("leave_by", "", app="loops") == ""


async def test_a_job_is_cancelled_once_and_then_has_its_grace(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with Rig.open(sync=0, async_=10, app="loops") as rig:
        key = submit(rig, "clean_up", (str(notes), 1.2))
        await rig.until(lambda: rig.pool.running() == [(key, 0)])
        rig.pool.cancel(key, 0)
        rig.pool.cancel(key, 0)
        assert (await rig.outcome(key)).status == "ok"
    assert notes.read_text().split() == ["clean"]


# -- a runner dies, and nobody knows of whom -------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "status", "error"), [
    ("crash", "failed", "runner died (signal 11, SIGSEGV)"),
    ("crash_later", "retry", "runner died (exit status 7)"),
    ("write_garbage", "failed", "runner died ("),
])
async def test_only_the_one_that_did_it_pays(task: str, status: str, error: str, tmp_path: Path) -> None:
    """The others begin again; none of them may be tried more than once."""
    notes = tmp_path / "notes"
    async with Rig.open(sync=0, async_=20, app="loops") as rig:
        near = submit(rig, "beside", *((str(notes), index, 0.4) for index in range(8)))
        await rig.until(lambda: len(rig.pool.running()) == 8)
        guilty = submit(rig, task, ())
        later = submit(rig, "beside", *((str(notes), f"later{index}", 0.0) for index in range(8)))
        outcome = await rig.outcome(guilty)
        assert outcome.status == status and outcome.error.startswith(error)
        await rig.until(lambda: len(rig.outcomes) == 17)
        assert {rig.outcomes[key, index].status for key in (near, later) for index in range(8)} == {"ok"}
    assert max(Counter(notes.read_text().split()).values()) == 2


async def test_where_nobody_did_it_all_end_well(tmp_path: Path) -> None:
    """A kernel short of memory kills from outside. Nothing that is new waits for the suspects."""
    async with Rig.open(sync=0, async_=20, app="loops") as rig:
        near = submit(rig, "beside", *((str(tmp_path / "notes"), index, 0.1) for index in range(3)))
        long = submit(rig, "beside", (str(tmp_path / "notes"), "long", 600))
        await rig.until(lambda: len(rig.pool.running()) == 4)
        kill(rig.pids()[0], signal.SIGKILL)
        await rig.value("beside", str(tmp_path / "notes"), "new", 0, app="loops")
        pids = [load_value("pickle", (await rig.outcome(near, index)).value) for index in range(3)]
        assert (long, 0) not in rig.outcomes and pids
        await rig.until(lambda: rig.pool.running() == [(long, 0)])
        assert rig.pool.keeps(long) and not rig.pool.keeps(near)


async def test_suspects_go_back_when_a_node_leaves(tmp_path: Path) -> None:
    async with Rig.open(sync=0, async_=20, app="loops") as rig:
        near = submit(rig, "beside", *((str(tmp_path / "notes"), index, 600) for index in range(3)))
        await rig.until(lambda: len(rig.pool.running()) == 3)
        kill(rig.pids()[0], signal.SIGKILL)
        await rig.until(lambda: rig.pool.keeps(near))
        assert sorted(dict(rig.pool.withdraw(None))[near]) == [0, 1, 2]
        assert not rig.pool.keeps(near)


async def test_a_job_that_must_not_run_twice_does_not_begin_again(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with Rig.open(sync=0, async_=20, app="loops") as rig:
        once = rig.submit("never_twice", (str(notes), "once", 600), app="loops", options=Options(max_attempts=1))
        await rig.until(lambda: len(rig.pool.running()) == 1)
        guilty = submit(rig, "crash", ())
        assert (await rig.outcome(once)).error[:32] == "runner died (signal 11, SIGSEGV)"
        assert (await rig.outcome(guilty)).status == "failed"
    assert notes.read_text().split() == ["once"]


async def test_who_blocks_the_loop_pays_and_not_who_runs_out_of_time_meanwhile(tmp_path: Path) -> None:
    async with Rig.open(sync=0, async_=20, app="loops") as rig:
        near = submit(rig, "beside", *((str(tmp_path / "notes"), index, 0.3) for index in range(3)), timeout_s=0.6)
        await rig.until(lambda: len(rig.pool.running()) == 3)
        blocks = submit(rig, "block", (600,), timeout_s=0.2)
        assert "did not end" in (await rig.outcome(blocks)).error
        assert [(await rig.outcome(near, index)).status for index in range(3)] == ["ok"] * 3


async def test_beside_one_that_has_to_be_killed() -> None:
    async with Rig.open(sync=0, async_=20, app="loops") as rig:
        near = submit(rig, "beside", ("/dev/null", 0, 0.5))
        stubborn = submit(rig, "stubborn", ())
        assert "did not end" in (await rig.outcome(stubborn)).error
        assert (await rig.outcome(near)).status == "ok" and not rig.pool.keeps(near)


# -- several event loops ---------------------------------------------------------------------------------------------


async def test_coroutines_that_compute_use_several_processes() -> None:
    async with Rig.open(sync=0, async_=20, async_processes=2, app="loops") as rig:
        blocked = submit(rig, "block", (600,))
        key = submit(rig, "beside", *(("/dev/null", index, 0.0) for index in range(60)))
        await rig.until(lambda: len(rig.outcomes) == 60)
        assert len({load_value("pickle", rig.outcomes[key, index].value) for index in range(60)}) == 1
        assert rig.pool.running() == [(blocked, 0)]


async def test_what_waits_before_one_loop_is_spread_anew_when_another_has_nothing_left() -> None:
    async with Rig.open(sync=0, async_=20, async_processes=2, app="loops") as rig:
        key = submit(rig, "block", *[(0.06,)] * 10, *[(0,)] * 10)
        await rig.until(lambda: len(rig.outcomes) == 20)
        assert len({load_value("pickle", rig.outcomes[key, index].value) for index in range(10)}) == 2


async def test_the_capacity_is_that_of_all_processes_together() -> None:
    async with Rig.open(sync=0, async_=5, async_processes=2, app="loops") as rig:
        key = submit(rig, "beside", *(("/dev/null", index, 600) for index in range(10)))
        await rig.until(lambda: len(rig.pool.running()) == 5)
        assert sorted(len(runner.started()) for runner in rig.pool._runners.values()) == [2, 3]
        await asyncio.sleep(0)
        assert rig.pool.withdraw([key]) == [(key, list(range(5, 10)))]
