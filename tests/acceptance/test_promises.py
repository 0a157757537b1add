"""What tasks, queues and people may ask for, through the public API, on a real cluster of two nodes."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import rota
from rota.client import default
from rota.client.api import AsyncClient

from .apps import promises as app
from .rig import Rig, until

APP = "tests.acceptance.apps.promises"
PATIENCE_S = 20.0


def lines(journal: Path) -> list[str]:
    return [row.split()[0] for row in journal.read_text().splitlines()] if journal.exists() else []


def most_at_once(journal: Path, suffix: str = "") -> int:
    now = most = 0
    for what in lines(journal):
        if what == f"start{suffix}":
            now += 1
            most = max(most, now)
        elif what == f"end{suffix}":
            now -= 1
    return most


# -- retries, timeouts, context


async def test_retries_and_timeouts(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=2, app=APP) as rig:
        await a_job_is_retried_until_it_succeeds(rig, tmp_path)
        await errors_are_reported_only_when_the_retries_are_used_up(rig, tmp_path)
        await attempts_per_enqueue(rig, tmp_path)
        await a_backoff_that_raises_fails_the_job_and_says_so(rig)
        await some_exceptions_are_not_retried(rig, tmp_path)
        await a_job_may_snooze_and_ask_for_a_retry(rig, tmp_path)
        await timeouts_of_both_kinds(rig)
        await touch_restarts_the_clock(rig)
        await a_job_knows_itself(rig)
        await a_class_is_a_worker(rig)


async def a_job_is_retried_until_it_succeeds(rig: Rig, folder: Path) -> None:
    handle = await rig.client.enqueue(app.fail_until, str(folder / "retried"), str(folder / "never"), 3)
    assert await handle.aresult(PATIENCE_S) == 3
    assert len(lines(folder / "retried")) == 3 and not (folder / "never").exists()


async def errors_are_reported_only_when_the_retries_are_used_up(rig: Rig, folder: Path) -> None:
    handle = await rig.client.enqueue(app.fail_until, str(folder / "used-up"), str(folder / "reports"), 99)
    with pytest.raises(rota.JobFailed, match=r"failed after 4 attempt.*Trouble: attempt 4"):
        await handle.aresult(PATIENCE_S)
    assert (folder / "reports").read_text().splitlines() == [f"{handle.id} 4 attempt 4"]
    logged = [line for name in rig.guards for line in rig.log(name).splitlines() if handle.id in line]
    levels = Counter(line.split()[2] for line in logged if "failed" in line)
    assert levels == {"WARNING": 3, "ERROR": 1}


async def attempts_per_enqueue(rig: Rig, folder: Path) -> None:
    once = app.fail_until.using(max_attempts=1)
    handle = await rig.client.enqueue(once, str(folder / "once"), str(folder / "x"), 99)
    with pytest.raises(rota.JobFailed, match=r"failed after 1 attempt"):
        await handle.aresult(PATIENCE_S)
    often = app.fail_until.using(max_attempts=7)
    assert await (await rig.client.enqueue(often, str(folder / "7"), str(folder / "x"), 7)).aresult(PATIENCE_S) == 7


async def a_backoff_that_raises_fails_the_job_and_says_so(rig: Rig) -> None:
    handle = await rig.client.enqueue(app.fail_hopelessly)
    with pytest.raises(rota.JobFailed, match=r"oh no; its retry_delay\(1\) raised LookupError: no delay for"):
        await handle.aresult(PATIENCE_S)


async def some_exceptions_are_not_retried(rig: Rig, folder: Path) -> None:
    for name, attempts in (("os", 5), ("connection", 1), ("value", 1)):
        handle = await rig.client.enqueue(app.fail_with, str(folder / name), name)
        with pytest.raises(rota.JobFailed, match=f"failed after {attempts} attempt"):
            await handle.aresult(PATIENCE_S)


async def a_job_may_snooze_and_ask_for_a_retry(rig: Rig, folder: Path) -> None:
    handle = await rig.client.enqueue(app.wait_and_see, str(folder / "snoozed"), 3)
    assert await handle.aresult(PATIENCE_S) == "attempt 2"
    assert len(lines(folder / "snoozed")) == 5


async def timeouts_of_both_kinds(rig: Rig) -> None:
    for task in (app.slow, app.aslow):
        with pytest.raises(rota.JobFailed, match=r"timed out after 0\.5 s"):
            await (await rig.client.enqueue(task, 60)).aresult(PATIENCE_S)
        with pytest.raises(rota.JobFailed, match=r"timed out after 0\.2 s"):
            await (await rig.client.enqueue(task.using(timeout=timedelta(seconds=0.2)), 60)).aresult(PATIENCE_S)
        assert await (await rig.client.enqueue(task.using(timeout=30), 0.7)).aresult(PATIENCE_S) == "done"
        with pytest.raises(rota.InvalidJob, match="timeout 0: more than 0"):
            task.using(timeout=0)


async def touch_restarts_the_clock(rig: Rig) -> None:
    for task in (app.slow, app.aslow):
        assert await (await rig.client.enqueue(task, 2.0, touches=20)).aresult(PATIENCE_S) == "done"
        with pytest.raises(rota.JobFailed, match="timed out"):
            await (await rig.client.enqueue(task, 3.0, touches=2)).aresult(PATIENCE_S)


async def a_job_knows_itself(rig: Rig) -> None:
    handle = await rig.client.enqueue(app.context.using(queue="who"))
    known = await handle.aresult(PATIENCE_S)
    assert (known["id"], known["queue"], known["attempt"], known["task"]) == (handle.id, "who", 1, f"{APP}:context")
    assert abs(known["enqueued_at"] - datetime.now(UTC).timestamp()) < 60 and not known["cancel_requested"]
    later = await (await rig.client.enqueue(app.context)).aresult(PATIENCE_S)
    assert later["fencing_token"] > known["fencing_token"] > 0


async def a_class_is_a_worker(rig: Rig) -> None:
    with rota.connect(await rig.urls()):
        try:
            handles = [app.Doubler.perform_async(21), app.Doubler.perform_in(0.001, 21)]
            assert [await asyncio.to_thread(handle.result, PATIENCE_S) for handle in handles] == [42, 42]
        finally:
            default.replace(None)


# -- limits, serial queues, delays, levels


async def test_limits_and_order(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=2, app=APP) as rig:
        await limits_hold_over_the_cluster(rig, tmp_path)
        await a_limit_is_named(rig, tmp_path)
        await one_job_per_key(rig, tmp_path)
        await a_serial_queue_waits_for_success(rig, tmp_path)
        await a_head_can_be_skipped(rig, tmp_path)
        await delays_of_all_kinds(rig)
        await levels_of_persistence(rig)


async def limits_hold_over_the_cluster(rig: Rig, folder: Path) -> None:
    for task, name in ((app.limited, "limited"), (app.squeezed, "narrow")):
        journal = folder / name
        handles = await rig.client.enqueue_many(task, [(str(journal),)] * 20)
        await asyncio.gather(*[handle.aresult(PATIENCE_S) for handle in handles])
        assert lines(journal).count("end") == 20 and most_at_once(journal) == 2


async def a_limit_is_named(rig: Rig, folder: Path) -> None:
    journal = str(folder / "named")
    running = [await rig.client.enqueue(app.limited, journal, 600.0) for _ in range(2)]
    third = await rig.client.enqueue(app.limited, journal)
    await until(lambda: _says(third, f"task {APP}:limited is at its limit of 2 at a time"), "it says so")
    running.append(await rig.client.enqueue(app.per_customer, journal, "eve", 600.0))
    fourth = await rig.client.enqueue(app.per_customer, journal, "eve")
    await until(lambda: _says(fourth, f"task {APP}:per_customer is at its limit of 1 at a time for key eve"), "so")
    for handle in (*running, third, fourth):
        await handle.acancel()
    for handle in running:
        with pytest.raises(rota.JobCancelled):
            await handle.aresult(PATIENCE_S)


async def one_job_per_key(rig: Rig, folder: Path) -> None:
    journal = folder / "customers"
    calls = [(str(journal), customer) for customer in ("ann", "bob") for _ in range(8)]
    handles = await rig.client.enqueue_many(app.per_customer, calls)
    handles_too = [await rig.client.enqueue(app.per_customer, str(journal), customer="ann") for _ in range(4)]
    await asyncio.gather(*[handle.aresult(PATIENCE_S) for handle in (*handles, *handles_too)])
    assert most_at_once(journal, "-ann") == 1 and most_at_once(journal, "-bob") == 1
    assert Counter(lines(journal)) == {"start-ann": 12, "end-ann": 12, "start-bob": 8, "end-bob": 8}
    both = [line.partition("-")[2] for line in lines(journal) if line.startswith("start")]
    assert both[:2] in (["ann", "bob"], ["bob", "ann"])       # side by side: neither waits for the other


async def a_serial_queue_waits_for_success(rig: Rig, folder: Path) -> None:
    journal, flag = folder / "serial", folder / "flag"
    handles = [await rig.client.enqueue(app.in_order, str(journal), 1)]
    handles.append(await rig.client.enqueue(app.in_order, str(journal), 2, str(flag)))
    handles.append(await rig.client.enqueue(app.in_order, str(journal), 3))
    await until(lambda: lines(journal).count("start-2") == 2, "both attempts of the second have failed")
    await until(lambda: _says(handles[1], "it failed for good and blocks"), "the second job blocks")
    await until(lambda: _says(handles[2], "it stands behind bundle"), "the third one waits for it")
    other = await rig.client.enqueue(app.plain, 1)
    assert await other.aresult(PATIENCE_S) == 2               # no other queue is held up
    assert "start-3" not in lines(journal)
    flag.touch()
    assert await rig.client.retry_head("serial") == handles[1].id
    assert [await handle.aresult(PATIENCE_S) for handle in handles] == [1, 2, 3]
    assert [what for what in lines(journal) if what.startswith("end")] == ["end-1", "end-2", "end-3"]


async def a_head_can_be_skipped(rig: Rig, folder: Path) -> None:
    journal = folder / "skipped"
    with pytest.raises(rota.InvalidJob, match="the head of queue serial has not failed"):
        await rig.client.skip_head("serial")
    stuck = await rig.client.enqueue(app.in_order, str(journal), 1, str(folder / "never-there"))
    after = await rig.client.enqueue(app.in_order, str(journal), 2)
    await until(lambda: _says(stuck, "it failed for good and blocks"), "the head blocks")
    assert await rig.client.skip_head("serial") == stuck.id
    assert await after.aresult(PATIENCE_S) == 2
    assert [view.id for view in await rig.client.failed("serial")] == [stuck.id]


async def delays_of_all_kinds(rig: Rig) -> None:
    asked = datetime.now(UTC)
    for run_after in (0.3, timedelta(seconds=0.3), asked + timedelta(seconds=0.3)):
        handle = await rig.client.enqueue(app.plain.using(run_after=run_after), 1)
        assert await handle.aresult(PATIENCE_S) == 2
        assert datetime.now(UTC) >= asked + timedelta(seconds=0.3)
    later = await rig.client.enqueue(app.plain.using(run_after=timedelta(hours=1)), 1)
    view = await later.astatus()
    assert view.place == "scheduled" and abs(view.due - datetime.now(UTC).timestamp() - 3600) < 60
    for wrong, message in ((-1, "at least 0"), (datetime(2100, 1, 1), "has no time zone")):
        with pytest.raises(rota.InvalidJob, match=message):
            app.plain.using(run_after=wrong)
    assert await later.acancel() == "cancelled"


async def levels_of_persistence(rig: Rig) -> None:
    async def run(task: Any) -> str | None:
        handle = await rig.client.enqueue(task, 1)
        assert await handle.aresult(PATIENCE_S) == 2
        return handle.level

    assert await run(app.plain) == "durable"
    assert await run(app.plain.using(level="delayed")) == "delayed"
    assert await run(app.plain.using(level="none")) == "none"
    assert await run(app.fleeting) == "none"
    assert await run(app.fleeting.using(level="durable")) == "durable"
    assert rig.client.handle((await rig.client.enqueue(app.plain, 1)).id).level is None
    many = await rig.client.enqueue_many(app.fleeting, [(number,) for number in range(100)])
    assert {handle.level for handle in many} == {"none"} and await many[99].aresult(PATIENCE_S) == 100
    for task in (app.fleeting.using(run_after=1), app.plain.using(queue="narrow", level="delayed")):
        with pytest.raises(rota.InvalidJob, match="cannot be combined with a delay, a limit"):
            await rig.client.enqueue(task, 1)
    with pytest.raises(rota.InvalidJob, match="cannot be combined"):
        await rig.client.enqueue(app.limited.using(level="none"), "journal")


# -- operations


async def test_operations(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=2, app=APP) as rig:
        await a_queue_is_paused_emptied_and_resumed(rig)
        await queue_settings(rig)
        await the_failed_set(rig, tmp_path)
        await jobs_are_cancelled_wherever_they_are(rig, tmp_path)
        await the_port_says_the_same(rig)
        await declarations_do_not_undo_a_pause(rig)


async def a_queue_is_paused_emptied_and_resumed(rig: Rig) -> None:
    assert (await rig.client.pause("quiet")).paused
    handles = [await rig.client.enqueue(app.plain.using(queue="quiet"), number) for number in range(3)]
    await until(lambda: _says(handles[0], "queue quiet is paused"), "it says that it is paused")
    with pytest.raises(rota.InvalidJob, match="queue quiet has 3 waiting jobs, not 2"):
        await rig.client.empty_queue("quiet", 2)
    assert await rig.client.empty_queue("quiet", 3) == 3
    with pytest.raises(rota.JobCancelled):
        await handles[0].aresult(PATIENCE_S)
    last = await rig.client.enqueue(app.plain.using(queue="quiet"), 41)
    assert not (await rig.client.resume("quiet")).paused
    assert await last.aresult(PATIENCE_S) == 42


async def _says(handle: rota.JobHandle[Any], why: str) -> bool:
    return (await handle.astatus()).why.startswith(why)


async def queue_settings(rig: Rig) -> None:
    settings = await rig.client.set_queue("some", serial=True, max_concurrency=7)
    assert (settings.paused, settings.serial, settings.max_concurrency) == (False, True, 7)
    assert (await rig.client.set_queue("some", max_concurrency=None)).max_concurrency is None
    assert not (await rig.client.set_queue("some", serial=False)).serial
    with pytest.raises(rota.InvalidJob, match="nothing to change"):
        await rig.client.set_queue("some")
    with pytest.raises(rota.InvalidJob, match="max_concurrency 0"):
        await rig.client.set_queue("some", max_concurrency=0)
    with pytest.raises(rota.InvalidJob, match="no queue name"):
        await rig.client.pause("no/queue")


async def the_failed_set(rig: Rig, folder: Path) -> None:
    async def fail(name: str) -> rota.JobHandle[Any]:
        handle = await rig.client.enqueue(app.fail_with.using(max_attempts=1), str(folder / "failures"), name)
        with pytest.raises(rota.JobFailed):
            await handle.aresult(PATIENCE_S)
        return handle

    first, second, third = [await fail(name) for name in ("os", "value", "value")]
    for which in ({"queue": "elsewhere"}, {"error": "MemoryError"}, {"task": "m:f"}):
        with pytest.raises(rota.InvalidJob, match="no failed job fits"):
            await rig.client.retry_failed(**which)
    with pytest.raises(rota.InvalidJob, match="not in the failed set"):
        await rig.client.delete_failed("k3f9q2m7xa5t-0000001f/0")
    with pytest.raises(rota.InvalidJob, match="which failed jobs"):
        await rig.client.delete_failed()
    assert await rig.client.retry_failed(error="OSError") == 1
    await until(lambda: _count(folder / "failures", 4), "it has run again")
    await until(lambda: _failed(rig, 3), "it has failed again")
    assert await rig.client.delete_failed([second.id]) == 1
    assert {view.id for view in await rig.client.failed()} == {first.id, third.id}
    assert await rig.client.delete_failed(all=True) == 2
    assert await rig.client.failed() == [] and await rig.client.delete_failed(all=True) == 0


async def _count(journal: Path, count: int) -> bool:
    return len(lines(journal)) == count


async def _failed(rig: Rig, count: int) -> bool:
    return len(await rig.client.failed()) == count


async def jobs_are_cancelled_wherever_they_are(rig: Rig, folder: Path) -> None:
    waiting = await rig.client.enqueue(app.plain.using(queue="nobody", run_after=3600), 1)
    assert await rig.client.cancel(waiting.id) == "cancelled"
    assert await waiting.acancel() == "ended"
    with pytest.raises(rota.JobCancelled):
        await waiting.aresult(PATIENCE_S)
    journal = folder / "cancelled"
    running = await rig.client.enqueue(app.stop_when_told, str(journal))
    await until(lambda: _count(journal, 1), "it runs")
    assert await running.acancel() == "requested"
    assert await running.aresult(PATIENCE_S) is True          # it chose to end well, and knew
    stubborn = await rig.client.enqueue(app.slow.using(timeout=600), 600)
    await until(lambda: _claimed(stubborn), "a node has it")
    assert await stubborn.acancel() == "requested"
    with pytest.raises(rota.JobCancelled):
        await stubborn.aresult(PATIENCE_S)
    with pytest.raises(rota.InvalidJob, match="unknown"):
        await rig.client.cancel("k3f9q2m7xa5t-0000001f/0")
    with pytest.raises(rota.InvalidJob, match="no job id"):
        await rig.client.cancel("nonsense")


async def _claimed(handle: rota.JobHandle[Any]) -> bool:
    return (await handle.astatus()).place == "claimed"


async def the_port_says_the_same(rig: Rig) -> None:
    """For those without rota's client."""
    url = (await rig.urls())[0]

    def post(path: str, body: Any) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(url + path, data=data), timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    async def asked(path: str, body: Any) -> tuple[int, Any]:
        return await asyncio.to_thread(post, path, body)

    settings = {"paused": True, "serial": False, "max_concurrency": 3}
    assert await asked("/v1/queues/web", {"paused": True, "max_concurrency": 3}) == (200, settings)
    status, answer = await asked("/v1/queues/web", {"colour": "red"})
    assert status == 400 and "a queue has no setting colour" in answer["message"]
    job = {"task": f"{APP}:plain", "args": [1], "queue": "web", "max_attempts": 2, "timeout_s": 9, "key": "k"}
    status, stored = await asked("/v1/jobs", job)
    assert status == 201 and stored["level"] == "durable"
    assert await asked(f"/v1/jobs/{stored['id']}/cancel", {}) == (200, {"outcome": "cancelled"})
    for bad in ({"timeout_s": 0}, {"level": "some"}, {"max_attempts": 0}, {"delay_s": -1}, {"key": "x" * 200}):
        status, answer = await asked("/v1/jobs", job | bad)
        assert status == 400 and next(iter(bad)) in answer["message"], answer
    assert await asked("/v1/queues/web/empty", {"expected": 0}) == (200, {"emptied": 0})
    for path, body in (
        ("/v1/queues/web/empty", {}), ("/v1/queues/web/head", {"verb": "jump"}), ("/v1/failed/retry", {}),
        ("/v1/failed/delete", {"all": True, "queue": "x"}), ("/v1/queues/web", b"\xff"), ("/v1/queues/web", []),
    ):
        status, answer = await asked(path, body)
        assert status == 400 and answer["error"] == "InvalidJob", (path, answer)


async def declarations_do_not_undo_a_pause(rig: Rig) -> None:
    await rig.client.set_queue("narrow", paused=True, max_concurrency=9)
    await rig.joined([rig.start()])
    await until(lambda: _narrow(rig, 2), "the code's limit is back")
    assert (await rig.client.set_queue("narrow", paused=True)).paused
    await rig.client.resume("narrow")


async def _narrow(rig: Rig, limit: int) -> bool:
    (record,) = await rig.read(rig.keys.queue("narrow"))
    return f'"max_concurrency":{limit}'.encode() in record.value and b'"paused":true' in record.value


# -- orphans


async def test_orphans(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=2, app=APP, sync=4, grace_s=1.0) as rig:
        once, patient = tmp_path / "once", tmp_path / "patient"
        handle = await rig.client.enqueue(app.once_only, str(once), 600.0)
        await rig.client.enqueue(app.patient, str(patient), 600.0)
        await until(lambda: lines(once) and lines(patient), "both run")
        started = float(patient.read_text().split()[-1])
        doomed = await rig.members()
        await rig.joined([rig.start()])
        await rig.client.aclose()
        rig.client = AsyncClient(await rig.urls())
        for member in doomed:
            rig.kill_node(member)
        await until(lambda: _failed(rig, 1), "the one that may not run twice has failed")
        (failed,) = await rig.client.failed()
        with pytest.raises(rota.JobFailed, match="its node was lost while it may have been running"):
            await rig.client.handle(handle.id).aresult(PATIENCE_S)
        assert failed.reason == "lost" and "on_orphan" in failed.error and lines(once) == ["start"]
        await until(lambda: len(lines(patient)) == 2, "the other one runs again")
        again = float(patient.read_text().split()[-1])
        assert again - started >= 2.0
        assert await rig.client.retry_failed(failed.id) == 1        # a person may decide otherwise
        await until(lambda: len(lines(once)) == 2, "it runs again")
