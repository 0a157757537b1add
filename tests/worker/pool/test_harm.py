"""Jobs that harm their runner, or do not end: they fail alone, and the runner is replaced."""

from __future__ import annotations

import asyncio
import signal
import struct
from collections import Counter
from pathlib import Path

import pytest

from rota.client.calls import pickling
from rota.client.errors import ConfigError
from rota.client.model import Options

from ..rig import Rig, alive, boottime, eventually, exists, kill


@pytest.mark.parametrize(("task", "error"), [
    ("leave", "runner died (exit status 7)"),
    ("crash", "runner died (signal 11, SIGSEGV); its last words: Fatal Python error: Segmentation fault"),
    ("close_files", "runner died (its channel to the node was closed or garbled)"),
    ("write_garbage", "runner died ("),
])
async def test_only_the_job_that_harms_its_runner_fails(task: str, error: str) -> None:
    async with Rig.open() as rig:
        await rig.value("double", 1)        # from here on, bundles are sent ahead
        before = rig.submit("double", *((number,) for number in range(20)))
        harmful = rig.submit(task, ())
        after = rig.submit("double", *((number,) for number in range(20)))
        await rig.until(lambda: len(rig.outcomes) == 42)
        outcome = rig.outcomes[harmful, 0]
        assert outcome.status == "failed" and outcome.error.startswith(error), outcome
        assert all(rig.outcomes[key, index].status == "ok" for key in (before, after) for index in range(20))


async def test_an_async_job_that_crashes_in_its_first_step_takes_none_of_its_bundle_along() -> None:
    async with Rig.open(sync=0, async_=100) as rig:
        crash = rig.submit("acrash", ())
        after = rig.submit("adouble", *((number,) for number in range(50)))
        await rig.until(lambda: len(rig.outcomes) == 51)
        failed = [key for key, outcome in rig.outcomes.items() if outcome.status != "ok"]
        assert failed == [(crash, 0)] and (after, 49) in rig.outcomes


async def test_a_runner_killed_mid_job_is_replaced_and_the_job_retried() -> None:
    async with Rig.open() as rig:
        pid = await rig.value("pid")
        key = rig.submit("sleep", (600,))
        waiting = rig.submit("pid", ())
        await rig.until(lambda: rig.pool.running() == [(key, 0)])
        kill(pid, signal.SIGKILL)
        outcome = await rig.outcome(key)
        assert (outcome.status, outcome.error) == ("failed", "runner died (signal 9, SIGKILL)")
        assert (await rig.outcome(waiting)).status == "ok"
        key = rig.submit("fail", ("x",), payloads=None, attempt=1)
        assert (await rig.outcome(key)).status == "retry"


async def test_a_dead_runners_job_is_retried_if_its_task_says_so() -> None:
    async with Rig.open(async_=1) as rig:
        apid = await rig.value("apid")
        key = rig.submit("atoo_slow", (), options=Options(timeout_s=600.0))
        await rig.until(lambda: rig.pool.running() == [(key, 0)])
        kill(apid, signal.SIGKILL)
        outcome = await rig.outcome(key)
        assert (outcome.status, outcome.error) == ("retry", "runner died (signal 9, SIGKILL)")
        assert 0.5 <= outcome.delay_s <= 1.0


async def test_a_stopped_runner_is_replaced_at_a_jobs_timeout() -> None:
    """The job was not started: another runner gets it."""
    async with Rig.open() as rig:
        pid = await rig.value("pid")
        kill(pid, signal.SIGSTOP)
        assert await rig.value("pid", options=Options(timeout_s=0.3)) != pid


async def test_runners_killed_while_jobs_fly(tmp_path: Path) -> None:
    """Each job has one outcome. A plain function was run at most once, and exactly once if its runner was not killed.
    Coroutines that were beside each other begin again, and all end well but one that was alone."""
    notes = tmp_path / "notes"
    async with Rig.open(sync=2, async_=50) as rig:
        keys: list[int] = []
        for round_ in range(6):
            for _ in range(25):
                keys += [rig.submit(task, *((str(notes), f"{len(keys) + number}/{index}") for index in range(40)))
                         for number, task in enumerate(("note", "anote"))]
            await rig.until(lambda: len(rig.outcomes) > round_ * 1000 and len(rig.ready()) == 3)     # noqa: B023
            victim = rig.ready()[round_ % 3]
            kill(victim, signal.SIGKILL)
            await rig.until(lambda: victim not in rig.ready())       # noqa: B023
        await rig.until(lambda: len(rig.outcomes) == len(keys) * 40)
    ran = Counter(notes.read_text().split())
    names = {(key, index): f"{number}/{index}" for number, key in enumerate(keys) for index in range(40)}
    plain = [ran[name] for (key, _), name in names.items() if keys.index(key) % 2 == 0]
    assert max(plain) == 1
    failed = {job: outcome for job, outcome in rig.outcomes.items() if outcome.status != "ok"}
    least = {job: 0 if job in failed else 1 for job in names}       # it may have been killed before it wrote its note
    assert not {job: ran[name] for job, name in names.items() if not least[job] <= ran[name] <= 1 + 6}
    assert all(outcome.error == "runner died (signal 9, SIGKILL)" for outcome in failed.values())
    assert len(failed) <= 6


# -- timeouts --------------------------------------------------------------------------------------------------------


async def test_a_sync_job_over_its_time_takes_its_runner_with_it() -> None:
    async with Rig.open() as rig:
        pid = await rig.value("pid")
        key, after = rig.submit("too_slow", ()), rig.submit("pid", ())
        outcome = await rig.outcome(key)
        assert (outcome.status, outcome.error) == ("failed", "TimeoutError: timed out after 0.2 s")
        assert (await rig.outcome(after)).status == "ok"
        assert not alive(pid)


async def test_an_async_job_over_its_time_is_cancelled() -> None:
    async with Rig.open(sync=0, async_=2) as rig:
        pid = await rig.value("apid")
        outcome = await rig.run("atoo_slow")
        assert (outcome.status, outcome.error) == ("retry", "TimeoutError: timed out after 0.2 s")
        assert await rig.value("apid") == pid


async def test_a_job_that_blocks_the_loop_is_killed_at_its_timeout() -> None:
    async with Rig.open(sync=0, async_=2) as rig:
        key = rig.submit("block_the_loop", (600,), options=Options(timeout_s=0.2))
        after = rig.submit("adouble", (1,), options=Options(timeout_s=0.2))
        assert "did not end" in (await rig.outcome(key)).error
        assert (await rig.outcome(after)).status == "ok"


# -- cancel and withdraw ---------------------------------------------------------------------------------------------


async def test_cancel_wherever_the_job_is() -> None:
    async with Rig.open(async_=1) as rig:
        keys = [rig.submit("sleep", (600,)), rig.submit("double", (1,)), rig.submit("double", (2,), (3,)),
                rig.submit("asleep", (600,)), rig.submit("adouble", (1,))]
        await rig.until(lambda: len(rig.pool.running()) == 2)
        pid = rig.pids()
        for key in (keys[1], keys[4], keys[3]):     # sent ahead, waiting, running (async)
            rig.pool.cancel(key, 0)
            assert (await rig.outcome(key)).status == "cancelled"
        rig.pool.cancel(keys[2], 0)
        assert rig.pids() == pid
        rig.pool.cancel(keys[0], 0)                 # running (sync), and does not look: its runner goes
        assert (await rig.outcome(keys[0])).status == "cancelled"
        assert (await rig.outcome(keys[2], 1)).status == "ok"
        assert rig.outcomes[keys[2], 0].status == "cancelled"
        assert await rig.value("adouble", 1) == 2


async def test_a_plain_function_that_looks_ends_in_its_own_way() -> None:
    async with Rig.open() as rig:
        pid = await rig.value("pid")
        for task, status in (
            ("stop_when_asked", "ok"), ("stop_with_the_rest", "cancelled"), ("fail_when_asked", "failed"),
        ):
            key, after = rig.submit(task, ()), rig.submit("pid", ())
            await rig.until(lambda key=key: rig.pool.running() == [(key, 0)])
            rig.pool.cancel(key, 0)
            assert (await rig.outcome(key)).status == status
            assert pickling.load_value("pickle", (await rig.outcome(after)).value) == pid      # nobody was killed


async def test_a_plain_function_that_enqueues_hears_it_too() -> None:
    """Its answers are read by a thread from then on, and so is this."""
    async with Rig.open() as rig:
        key = rig.submit("enqueue_then_stop", ())
        await rig.until(lambda: bool(rig.enqueued))
        rig.pool.cancel(key, 0)
        assert (await rig.outcome(key)).status == "cancelled"


async def test_the_grace_of_a_cancelled_job_is_its_tasks_own() -> None:
    async with Rig.open() as rig:
        pid = await rig.value("pid")
        key = rig.submit("deaf", (600,))
        await rig.until(lambda: rig.pool.running() == [(key, 0)])
        rig.pool.cancel(key, 0)
        outcome = await rig.outcome(key)
        assert (outcome.status, outcome.error) == ("cancelled", "cancelled")
        assert await rig.value("pid") != pid


async def test_cancelling_what_ignores_it() -> None:
    async with Rig.open(sync=0, async_=1) as rig:
        key = rig.submit("stubborn", (), options=Options(timeout_s=600.0))
        await rig.until(lambda: rig.pool.running() == [(key, 0)])
        rig.pool.cancel(key, 0)
        assert (await rig.outcome(key)).status == "cancelled"


async def test_withdraw_gives_back_exactly_what_was_not_started() -> None:
    async with Rig.open() as rig:
        await rig.value("double", 1)                # so that much is sent ahead
        running = rig.submit("sleep", (0.5,))
        ahead = rig.submit("double", *((number,) for number in range(20)))
        kept = rig.submit("double", *((number,) for number in range(20)))
        await rig.until(lambda: rig.pool.running() == [(running, 0)])
        given = dict(rig.pool.withdraw([ahead]))
        assert given == {ahead: list(range(20))}
        assert rig.pool.withdraw([running]) == []
        await rig.until(lambda: len(rig.outcomes) == 22)
        assert all(rig.outcomes[kept, index].status == "ok" for index in range(20))
        assert (ahead, 0) not in rig.outcomes


async def test_withdrawing_while_jobs_fly_loses_and_repeats_none(tmp_path: Path) -> None:
    """Each job either has an outcome or was given back, never both."""
    async with Rig.open(sync=2) as rig:
        given: list[tuple[int, int]] = []
        for _ in range(30):
            for _ in range(20):
                rig.submit("double", *((number,) for number in range(60)))
            await asyncio.sleep(0.002)
            given += [(key, index) for key, indexes in rig.pool.withdraw(None) for index in indexes]
        await rig.until(lambda: len(rig.outcomes) + len(given) == 30 * 20 * 60)
        assert not set(given) & set(rig.outcomes)
        assert len(set(given)) == len(given)


# -- the lease -------------------------------------------------------------------------------------------------------


async def test_what_ends_with_the_lease_has_no_outcome() -> None:
    async with Rig.open(sync=1, async_=1) as rig:
        rig.pool.lease(1, boottime() + 600)
        rig.submit("sleep", (600,))
        rig.submit("asleep", (600,))
        rig.submit("double", (1,))
        await rig.until(lambda: len(rig.pool.running()) == 2)
        pids = rig.pids()
        rig.pool.lease(1, boottime() + 0.1)
        await rig.until(lambda: not rig.pool.stand)
        await rig.pool.kill_all()
        assert not any(map(alive, pids)) and not rig.outcomes and not rig.pool.running()
        rig.pool.lease(2, boottime() + 600)
        assert await rig.value("double", 2) == 4
        assert len(rig.outcomes) == 1


def shown_deadline(guard: int) -> float:
    """What its runners see."""
    page = next(link for link in Path(f"/proc/{guard}/fd").iterdir() if "rota-lease" in str(link.readlink()))
    return float(struct.unpack("d", page.read_bytes())[0])


@pytest.mark.parametrize("task", ["note", "anote"])
async def test_nothing_begins_past_the_leases_deadline(task: str, tmp_path: Path) -> None:
    """A machine stood still, and lets the runner go on before its guard: by then the job may have ended elsewhere."""
    notes = tmp_path / "notes"
    async with Rig.open(sync=task == "note", async_=task == "anote") as rig:
        (runner,) = rig.pids()
        guard = rig.guard._guard
        assert guard is not None
        assert (await rig.run(task, str(tmp_path / "before"), "begun")).status == "ok"
        deadline = boottime() + 1.0
        rig.pool.lease(1, deadline)
        await eventually(lambda: shown_deadline(guard.pid) == deadline)
        kill(guard.pid, signal.SIGSTOP)
        try:
            kill(runner, signal.SIGSTOP)
            key = rig.submit(task, (str(notes), "begun"))
            await eventually(lambda: boottime() > deadline)
            kill(runner, signal.SIGCONT)
            await rig.until(lambda: rig.pool.running() == [(key, 0)])       # it has been told to
        finally:
            kill(guard.pid, signal.SIGCONT)
        await rig.until(lambda: not rig.pool.stand)
        await rig.pool.kill_all()
        assert not notes.exists() and not rig.outcomes.pop((key, 0), None)
        rig.pool.lease(2, boottime() + 600)
        assert (await rig.run(task, str(notes), "again")).status == "ok"


async def test_kill_all_returns_when_runners_are_reaped() -> None:
    async with Rig.open(sync=2) as rig:
        rig.submit("sleep", (600,))
        pids = rig.pids()
        await rig.pool.kill_all()
        assert not any(map(exists, pids)) and not rig.outcomes
        key = rig.submit("double", (1,))            # waits for the next lease
        rig.pool.lease(1, boottime() + 600)
        assert (await rig.outcome(key)).status == "ok"


async def test_stop_lets_running_jobs_end() -> None:
    async with Rig.open(sync=1, async_=1) as rig:
        keys = [rig.submit("sleep", (0.3,)), rig.submit("asleep", (0.3,))]
        await rig.until(lambda: len(rig.pool.running()) == 2)
        never = rig.submit("double", (1,))
        await rig.pool.stop(20)
        assert [rig.outcomes[key, 0].status for key in keys] == ["ok", "ok"] and (never, 0) not in rig.outcomes


async def test_stop_kills_what_outlasts_the_grace() -> None:
    async with Rig.open(sync=1, async_=1) as rig:
        rig.submit("sleep", (600,))
        rig.submit("asleep", (600,))
        await rig.until(lambda: len(rig.pool.running()) == 2)
        pids = rig.pids()
        await rig.pool.stop(0.1)
        assert not rig.outcomes and not any(map(alive, pids))


# -- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_runner_is_not_stopped_by_a_signal_to_everybody(kind: str) -> None:
    """That is for the guard, which sends none on. What a job starts can be terminated as ever."""
    async with Rig.open(sync=kind == "sync", async_=kind == "async") as rig:
        (runner,) = rig.pids()
        long = rig.submit("sleep" if kind == "sync" else "asleep", (0.5,))
        await rig.until(lambda: rig.pool.running() == [(long, 0)])
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            kill(runner, number)
        assert (await rig.outcome(long)).status == "ok"
        task = "terminate_children" if kind == "sync" else "aterminate_children"
        assert await rig.value(task) == [-signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM]
        assert rig.pids() == [runner]


# -- starts ----------------------------------------------------------------------------------------------------------


async def test_an_app_that_breaks_later_is_tried_once_a_second_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    monkeypatch.setenv("BROKEN", str(broken))
    async with Rig.open(sync=2, app="broken") as rig:
        broken.touch()
        for _ in range(2):
            assert (await rig.run("leave", app="broken")).status == "failed"
        await eventually(lambda: len(broken.read_text().split()) >= 3)
        assert rig.pool.trouble is not None and "this app is broken" in rig.pool.trouble
        key = rig.submit("fine", (), app="broken")
        assert rig.pool.withdraw([key]) == [(key, [0])]     # it can be handed to another node
        key = rig.submit("fine", (), app="broken")
        broken.unlink()
        assert (await rig.outcome(key)).status == "ok"
        await eventually(lambda: rig.pool.trouble is None)


@pytest.mark.parametrize("then", ["stay", "exit"])
async def test_daemons_of_a_job_do_not_outlive_its_runner(then: str) -> None:
    async with Rig.open() as rig:
        daemons: list[int] = []
        if then == "stay":
            daemons.append(await rig.value("daemonise", then))
            daemons.append(await rig.value("helper"))
        else:
            await rig.run("daemonise", then)
        (pid,) = rig.pids()
        await rig.pool.kill_all()
        await eventually(lambda: not any(map(alive, [*daemons, pid])))


# -- where they start ------------------------------------------------------------------------------------------------


async def test_files_beside_the_app_do_not_shadow_what_rota_is_built_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are found where the app is, and are the app's own affair."""
    for name in ("token", "email", "logging", "queue", "types", "client"):
        (tmp_path / f"{name}.py").write_text("MINE = True\n")
    (tmp_path / "shop.py").write_text(
        "import rota, client, queue\n@rota.task\ndef which(): return client.MINE, hasattr(queue, 'Queue')\n"
    )
    monkeypatch.chdir(tmp_path)
    async with Rig.open(app="shop") as rig:
        assert await rig.value("which", app="shop") == (True, True)


async def test_an_app_that_takes_too_long_to_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"within 1 s: what do slow wait for .* --start-timeout"):
        async with Rig.open(app="slow", start_timeout_s=1.0):
            pass
