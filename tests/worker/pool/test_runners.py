"""Jobs through real runners: what they return, raise and see."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from rota.client.calls import pickling
from rota.client.errors import ConfigError
from rota.client.ids import job_id
from rota.client.model import BUNDLE_BYTES_MAX, Options
from rota.client.wire import codec

from ..rig import APPS, BUNDLE, Rig


async def test_a_thousand_sync_jobs_in_order() -> None:
    async with Rig.open() as rig:
        keys = [rig.submit("double", *((number,) for number in range(50))) for _ in range(20)]
        await rig.until(lambda: len(rig.outcomes) == 1000)
        assert all(
            pickling.load_value("pickle", rig.outcomes[key, number].value) == 2 * number
            for key in keys for number in range(50)
        )
        assert list(rig.outcomes) == [(key, number) for key in keys for number in range(50)]


async def test_a_thousand_async_jobs() -> None:
    async with Rig.open(sync=0, async_=100) as rig:
        keys = [rig.submit("adouble", *((number,) for number in range(50))) for _ in range(20)]
        await rig.until(lambda: len(rig.outcomes) == 1000)
        assert all(
            pickling.load_value("pickle", rig.outcomes[key, number].value) == 2 * number
            for key in keys for number in range(50)
        )


async def test_sync_jobs_share_the_runners() -> None:
    """Long jobs of one bundle run side by side, and what waits behind a long one is taken over by an idle runner."""
    async with Rig.open(sync=2) as rig:
        blocker = rig.submit("sleep", (600,))
        key = rig.submit("sleep", *[(0.01,)] * 10)
        await rig.until(lambda: len(rig.outcomes) == 10)
        assert all(rig.outcomes[key, index].status == "ok" for index in range(10))
        assert rig.pool.running() == [(blocker, 0)]


async def test_async_capacity_is_kept() -> None:
    async with Rig.open(sync=0, async_=3) as rig:
        key = rig.submit("asleep", *[(600,)] * 10)
        await rig.until(lambda: len(rig.pool.running()) == 3)
        assert rig.pool.withdraw([key]) == [(key, list(range(3, 10)))]


@pytest.mark.parametrize("task", ["fail", "afail"])
async def test_exceptions_fail_or_retry(task: str) -> None:
    async with Rig.open(async_=1) as rig:
        first = await rig.run(task, "oh\nno")
        assert first.status == "retry" and first.error == "ValueError: oh no" and 2.5 <= first.delay_s <= 5.0
        assert first.traceback.splitlines()[-2:] == ["ValueError: oh", "no"]
        assert 'jobs.py"' in first.traceback and "worker/" not in first.traceback.replace("tests/worker/", "")
        last = await rig.run(task, "again", attempt=2)
        assert last.status == "failed"
        more = await rig.run(task, "again", attempt=2, options=Options(max_attempts=3))
        assert more.status == "retry"


@pytest.mark.parametrize("task", ["unpicklable", "aunpicklable"])
async def test_a_result_that_cannot_be_pickled_fails_the_job(task: str) -> None:
    async with Rig.open(async_=1) as rig:
        outcome = await rig.run(task)
        assert outcome.status == "failed" and "lock" in outcome.error and "result" in outcome.error
        assert await rig.value("double", 2) == 4


async def test_awkward_ends_never_kill_the_runner() -> None:
    async with Rig.open() as rig:
        pid = await rig.value("pid")
        awkward = await rig.run("raise_awkward")
        assert awkward.status == "failed" and awkward.error.startswith("Awkward")
        large = await rig.run("large", BUNDLE_BYTES_MAX + 1)
        assert large.status == "failed" and "262,144" in large.error
        assert (await rig.value("large", 200_000)) == b"x" * 200_000
        politely = await rig.run("exit_politely")
        assert (politely.status, politely.error) == ("failed", "SystemExit: politely")
        unknown = await rig.run("no_such_task")
        assert unknown.status == "failed" and "jobs:no_such_task" in unknown.error
        garbage = await rig.outcome(rig.submit("double", payloads=[b"no pickle"]))
        assert garbage.status == "failed"
        assert (await rig.value("a_lambda"))() == 42
        assert await rig.value("pid") == pid


async def test_code_shipped_by_value() -> None:
    async with Rig.open(async_=1) as rig:
        factor = 3
        local = threading.local                     # by reference, from a module that the runner has

        async def asynchronous(x: int) -> int:
            await asyncio.sleep(0)
            return factor * x

        assert await rig.value("<lambda>", 14, function=lambda x: (local() is not None) and factor * x) == 42
        assert await rig.value("asynchronous", 14, function=asynchronous, mode="async") == 42
        broken = await rig.outcome(rig.submit("<lambda>", (1,), function=_Unloadable()))
        assert broken.status == "failed" and "cannot be loaded" in broken.error
        assert await rig.value("double", 2) == 4


class _Unloadable:
    def __call__(self) -> None: ...

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.path.join, ())                   # a TypeError when it is loaded


async def test_json_jobs() -> None:
    async with Rig.open() as rig:
        key = rig.submit("double", payloads=[b'{"args": [21], "kwargs": {}}', b'{"args": [], "kwargs": {"x": "a"}}'],
                         codec_="json")
        first, second = await rig.outcome(key, 0), await rig.outcome(key, 1)
        assert (first.value, first.codec, second.value) == (b"42", "json", b'"aa"')
        refused = await rig.outcome(rig.submit("large", payloads=[b'{"args": [1], "kwargs": {}}'], codec_="json"))
        assert refused.status == "failed" and "JSON" in refused.error


@pytest.mark.parametrize("task", ["context", "acontext"])
async def test_a_job_knows_itself(task: str) -> None:
    async with Rig.open(async_=1) as rig:
        assert await rig.value(task, attempt=3) == [job_id(BUNDLE, 0), f"jobs:{task}", "default", 3, 77, 1234.5]


async def test_starts_are_reported_on_request() -> None:
    async with Rig.open(async_=2) as rig:
        keys = [rig.submit("double", (1,), (2,), report_start=True), rig.submit("adouble", (1,), report_start=True)]
        await rig.until(lambda: len(rig.outcomes) == 3)
        assert sorted(rig.started) == [(keys[0], 0), (keys[0], 1), (keys[1], 0)]


async def test_logs_carry_the_job_and_prints_stay_off_the_channel(capfd: pytest.CaptureFixture[str]) -> None:
    async with Rig.open() as rig:
        await rig.value("log", "x\n\x1b[31mforged")
    err = capfd.readouterr().err
    assert f"INFO    app [{job_id(BUNDLE, 0)}] it says x\n    \\x1b[31mforged\n" in err
    assert "and prints\n" in err


async def test_a_runner_holds_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"ROTA_KEY_FILE", "ROTA_TOKEN", "ROTA_ETCD_PASSWORD", "ROTA_NODE_CONFIG"}
    for name in secrets | {"ROTA_URL"}:
        monkeypatch.setenv(name, "secret")
    async with Rig.open() as rig:
        environment = set(await rig.value("environment"))
        assert not secrets & environment
        assert {"ROTA_RUNNER", "ROTA_URL"} <= environment


async def test_surroundings_are_put_back_between_sync_jobs(tmp_path: Path) -> None:
    async with Rig.open() as rig:
        before = await rig.value("surroundings")
        await rig.value("mess_up", str(tmp_path))
        assert await rig.value("surroundings") == before


async def test_a_forked_child_that_returns_is_not_a_second_runner() -> None:
    async with Rig.open() as rig:
        assert await rig.value("fork_and_return") == "parent"
        assert await rig.value("double", 1) == 2


@pytest.mark.parametrize("sync", [0, 1])
async def test_hooks(sync: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = tmp_path / "notes"
    monkeypatch.setenv("HOOKS", str(notes))
    async with Rig.open(sync=sync, async_=1 - sync, app="hooked") as rig:
        if sync:
            await rig.value("nothing", app="hooked")
        await rig.pool.stop(5)
    assert notes.read_text().split() == ["start", "astart", *["job"] * sync, "astop", "stop"]


# -- jobs that enqueue -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["enqueue", "aenqueue"])
async def test_a_job_enqueues_jobs(task: str) -> None:
    async with Rig.open(async_=1) as rig:
        ids = await rig.value(task, 5)
        assert len(set(ids)) == 5
        jobs = [
            pickling.load_arguments("pickle", payload)
            for bundle in rig.enqueued for payload in codec.payloads(bundle.body)
        ]
        assert sorted(args[0] for args, _ in jobs) == [0, 1, 2, 3, 4]
        assert {bundle.task for bundle in rig.enqueued} == {"jobs:double"}
        assert not codec.decode_header(rig.enqueued[0].body)[0].tags     # its node signs


@pytest.mark.parametrize("task", ["enqueue_from_thread", "enqueue_blocking_the_loop"])
async def test_enqueues_from_odd_places(task: str) -> None:
    async with Rig.open(async_=1) as rig:
        await rig.value(task)
        assert len(rig.enqueued) == 1


async def test_an_enqueue_that_is_refused_fails_as_it_would_outside() -> None:
    async with Rig.open() as rig:
        outcome = await rig.run("enqueue_nowhere")
        assert (outcome.status, outcome.error) == ("failed", "InvalidJob: no such place")


async def test_a_job_enqueues_code() -> None:
    async with Rig.open() as rig:
        await rig.value("enqueue_lambda")
        (digest, code), = rig.functions.items()
        assert codec.function_digest(code) == digest == rig.enqueued[0].function


# -- starts ----------------------------------------------------------------------------------------------------------


async def test_an_app_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    monkeypatch.setenv("BROKEN", str(broken))
    with pytest.raises(ConfigError, match=r"RuntimeError: this app is broken\n(.*\n)+.*broken\.py"):
        async with Rig.open(app="broken"):
            pass
    with pytest.raises(ConfigError, match="No module named 'no_such_module'"):
        async with Rig.open(app="no_such_module"):
            pass


async def test_tasks_are_known_after_the_start() -> None:
    async with Rig.open() as rig:
        assert rig.pool.tasks["jobs:fail"].max_attempts == 2
        assert (rig.pool.tasks["jobs:double"].mode, rig.pool.tasks["jobs:adouble"].mode) == ("sync", "async")
        assert APPS.name == "apps"
