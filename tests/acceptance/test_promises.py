"""What tasks, queues and people may ask for, through the public API, on a real cluster of three nodes.

Each scenario belongs to a row of docs/promises.md, and is seen to fail with its feature switched off: `switches/`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
import urllib.error
import urllib.request
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import rota
from rota.client.api.clients import AsyncClient
from rota.client.calls import default
from rota.client.ids import parse_job_id
from rota.cluster.ledger.ledger import prefix_end
from rota.cluster.state.records import Claim, Token, decode

from .apps import promises as app
from .rig import PATIENCE_S, Rig, read_journal, until

APP = "tests.acceptance.apps.promises"


def lines(journal: Path) -> list[str]:
    return [row.split()[0] for row in journal.read_text().splitlines()] if journal.exists() else []


def bundle_of(handle: rota.JobHandle[Any]) -> str:
    return parse_job_id(handle.id)[0]


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
    async with Rig(etcd.endpoint, cluster_name, tmp_path, app=APP) as rig:
        await a_job_is_retried_until_it_succeeds(rig, tmp_path)
        await an_attempt_is_recorded(rig)
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
    first, second, third = [line.at for line in read_journal(folder / "retried")]
    assert second - first >= 0.05 and third - second >= 0.1          # as its `retry_delay` says


async def an_attempt_is_recorded(rig: Rig) -> None:
    """With its job, in the store: whoever is asked next knows of it."""
    handle = await rig.client.enqueue(app.fail_for_now.using(queue="records"))

    async def scheduled() -> Any:
        view = await handle.astatus()
        return view if view.place == "retrying" else None

    view = await until(scheduled, "it has failed once")
    assert (view.queue, view.attempt, view.why) == ("records", 2, "attempt 1 failed; it is tried again")
    assert abs(view.due - datetime.now(UTC).timestamp() - 3600) < 60
    (record,) = [record for record in await rig.read(rig.keys.scheduled) if b"/records/" in record.key]
    token = decode(Token, record.value)
    assert token is not None and (token.attempt, token.error) == (2, "ValueError: not yet")
    assert await handle.acancel() == "cancelled"


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
        with pytest.raises(rota.JobFailed, match=r"TimeoutError: timed out after 0\.5 s"):
            await (await rig.client.enqueue(task, 60)).aresult(PATIENCE_S)
        with pytest.raises(rota.JobFailed, match=r"timed out after 0\.2 s"):
            await (await rig.client.enqueue(task.using(timeout=timedelta(seconds=0.2)), 60)).aresult(PATIENCE_S)
        assert await (await rig.client.enqueue(task.using(timeout=30), 0.7)).aresult(PATIENCE_S) == "done"
        with pytest.raises(rota.InvalidJob, match="timeout 0 is not valid: more than 0"):
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
    with rota.connect(await rig.urls(), **rig.credentials()):
        try:
            asked = time.monotonic()
            handles = [app.Doubler.perform_async(21), app.Doubler.perform_in(0.01, 21)]
            assert [await asyncio.to_thread(handle.result, PATIENCE_S) for handle in handles] == [42, 42]
            assert time.monotonic() - asked >= 0.6          # minutes
        finally:
            default.replace(None)


# -- limits, serial queues, delays, levels


async def test_limits_and_order(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    async with Rig(etcd.endpoint, cluster_name, tmp_path, app=APP) as rig:
        await limits_hold_over_the_cluster(rig, tmp_path)
        await without_a_limit_many_run_at_once(rig, tmp_path)
        await a_runner_runs_one_plain_job_at_a_time(rig, tmp_path)
        await a_limit_is_named(rig, tmp_path)
        await one_job_per_key(rig, tmp_path)
        await a_serial_queue_waits_for_success(rig, tmp_path)
        await a_head_can_be_skipped(rig, tmp_path)
        await jobs_start_by_priority_and_in_order(rig, tmp_path)
        await delays_of_all_kinds(rig)
        await a_lone_job_starts_at_once(rig)
        await levels_of_persistence(rig)
        await what_each_level_stores(rig, tmp_path)
        await an_enqueue_returns_when_the_job_is_stored(rig)
        await the_store_is_used_sparingly(rig)
        await results_are_kept_as_long_as_asked(rig)


async def limits_hold_over_the_cluster(rig: Rig, folder: Path) -> None:
    for task, name, limit in ((app.limited, "limited", 2), (app.single, "single", 1), (app.squeezed, "narrow", 2)):
        journal = folder / name
        handles = await rig.client.enqueue_many(task, [(str(journal),)] * 20)
        await asyncio.gather(*[handle.aresult(PATIENCE_S) for handle in handles])
        assert lines(journal).count("end") == 20 and most_at_once(journal) == limit


async def without_a_limit_many_run_at_once(rig: Rig, folder: Path) -> None:
    for task, count in ((app.together, 40), (app.together_sync, 6)):
        journal = str(folder / f"together-{count}")
        handles = [await rig.client.enqueue(task, journal, count) for _ in range(count)]
        await asyncio.gather(*[handle.aresult(PATIENCE_S) for handle in handles])


async def a_runner_runs_one_plain_job_at_a_time(rig: Rig, folder: Path) -> None:
    """Two runners in each of three nodes."""
    journal = folder / "naps"
    handles = [await rig.client.enqueue(app.nap, str(journal)) for _ in range(24)]
    await asyncio.gather(*[handle.aresult(PATIENCE_S) for handle in handles])
    assert most_at_once(journal) <= 6 and lines(journal).count("end") == 24
    for pid in {line.pid for line in read_journal(journal)}:
        mine = [line.what for line in read_journal(journal) if line.pid == pid]
        assert mine == ["start", "end"] * (len(mine) // 2)


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
    await until(lambda: _says(handles[2], "serial queue serial is blocked by job"), "the third one waits for it")
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


async def jobs_start_by_priority_and_in_order(rig: Rig, folder: Path) -> None:
    journal = folder / "line-up"
    await rig.client.pause("line-up")
    handles = [
        await rig.client.enqueue(app.single.using(queue="line-up", priority=priority), str(journal), f"-{number}")
        for number, priority in ((1, 0), (2, 5), (3, 0), (4, -5), (5, 5))
    ]
    await rig.client.resume("line-up")
    await asyncio.gather(*[handle.aresult(PATIENCE_S) for handle in handles])
    started = [what for what in lines(journal) if what.startswith("start")]
    assert started == ["start-2", "start-5", "start-1", "start-3", "start-4"]


async def a_lone_job_starts_at_once(rig: Rig) -> None:
    """No one polls. (Milliseconds on a quiet machine; the bound is for a busy one.)"""
    waits = []
    for _ in range(7):
        asked = time.monotonic()
        await (await rig.client.enqueue(app.plain, 1)).aresult(PATIENCE_S)
        waits.append(time.monotonic() - asked)
    assert sorted(waits)[3] < 0.5, waits


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
    assert rig.client.handle((await rig.client.enqueue(app.plain, 1)).id).level is None       # it cannot know
    many = await rig.client.enqueue_many(app.fleeting, [(number,) for number in range(100)])
    assert {handle.level for handle in many} == {"none"} and await many[99].aresult(PATIENCE_S) == 100
    for task in (app.fleeting.using(run_after=1), app.plain.using(queue="narrow", level="delayed")):
        with pytest.raises(rota.InvalidJob, match="cannot be combined with a delay, a limit"):
            await rig.client.enqueue(task, 1)
    with pytest.raises(rota.InvalidJob, match="cannot be combined"):
        await rig.client.enqueue(app.limited.using(level="none"), "journal")


async def what_each_level_stores(rig: Rig, folder: Path) -> None:
    """While the job runs. `delayed`: body and claim are one transaction, so no master had to give it out. (`durable`:
    the same, where nothing stood before it.)"""

    async def stored(level: str) -> tuple[int, int]:
        """At which revisions body and claim were written; 0: never."""
        journal, flag = folder / level, folder / f"{level}-may-end"
        handle = await rig.client.enqueue(app.wait_for.using(level=level), str(journal), str(flag))
        await until(lambda: lines(journal), "it runs")
        found = []
        for prefix in (rig.keys.bodies, rig.keys.claims):
            mine = [record for record in await rig.read(prefix) if bundle_of(handle).encode() in record.key]
            found.append(mine[0].create_revision if mine else 0)
        flag.touch()
        await handle.aresult(PATIENCE_S)
        return found[0], found[1]

    body, claim = await stored("durable")
    assert 0 < body <= claim
    body, claim = await stored("delayed")
    assert 0 < body == claim
    assert await stored("none") == (0, 0)


async def an_enqueue_returns_when_the_job_is_stored(rig: Rig) -> None:
    await rig.client.pause("vault")
    handle = await rig.client.enqueue(app.plain.using(queue="vault"), 1)
    for prefix in (rig.keys.queue_jobs("vault"), rig.keys.bodies, rig.keys.receipts):
        assert bundle_of(handle).encode() in b" ".join([record.key for record in await rig.read(prefix)])
    await rig.client.resume("vault")
    assert await handle.aresult(PATIENCE_S) == 2


async def the_store_is_used_sparingly(rig: Rig) -> None:
    """Twenty jobs: three keys store them, their claim among these where nothing stood before them, else one more gives
    them out; one holds their results. (Some more if the node is slow, and tells of a few at a time; without bundles it
    would be a hundred.)"""
    before = await keys_written(rig)
    handles = await rig.client.enqueue_many(app.plain, [(number,) for number in range(20)])
    await asyncio.gather(*[handle.aresult(PATIENCE_S) for handle in handles])
    assert 4 <= await keys_written(rig) - before <= 25


async def keys_written(rig: Rig) -> int:
    """So far, says etcd."""

    def asked() -> int:
        with urllib.request.urlopen(f"{rig.endpoint}/metrics", timeout=20) as answer:
            found = re.search(r"^etcd_(?:debugging_)?mvcc_put_total (\S+)$", answer.read().decode(), re.MULTILINE)
        assert found is not None
        return int(float(found[1]))

    return await asyncio.to_thread(asked)


async def results_are_kept_as_long_as_asked(rig: Rig) -> None:
    async def left(handle: rota.JobHandle[Any]) -> int:
        return len(await rig.read(rig.keys.bundle_results(bundle_of(handle))))

    async def finished(handle: rota.JobHandle[Any]) -> bool:
        return (await handle.astatus()).place == "finished"

    kept, dropped, brief = [
        await rig.client.enqueue(task, 1)
        for task in (app.plain, app.plain.using(keep_result=0), app.plain.using(keep_result=1))
    ]
    for handle in (kept, dropped, brief):
        await until(lambda handle=handle: finished(handle), "it is finished")
        assert not await rig.read(rig.keys.body(bundle_of(handle)))         # its arguments go in any case
    assert (await left(kept), await left(dropped)) == (1, 0)
    assert (await dropped.astatus()).why == "it has ended, and left no result"

    assert 3600 <= await lifetime_s(rig, rig.keys.bundle_results(bundle_of(kept))) <= 3600 + 60
    assert 1 <= await lifetime_s(rig, rig.keys.bundle_results(bundle_of(brief))) <= 1 + 60
    assert await kept.aresult(PATIENCE_S) == 2


async def lifetime_s(rig: Rig, prefix: bytes) -> int:
    """For how long the key below this prefix was stored."""

    def asked() -> int:
        found = gateway(rig, "kv/range", key=prefix, range_end=prefix_end(prefix))["kvs"][0]
        return int(gateway(rig, "lease/timetolive", ID=found["lease"])["grantedTTL"])

    return await asyncio.to_thread(asked)


def gateway(rig: Rig, path: str, **fields: Any) -> Any:
    """etcd's JSON gateway."""
    said = {name: base64.b64encode(it).decode() if isinstance(it, bytes) else it for name, it in fields.items()}
    request = urllib.request.Request(f"{rig.endpoint}/v3/{path}", json.dumps(said).encode())
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


# -- operations


async def test_operations(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    async with Rig(etcd.endpoint, cluster_name, tmp_path, app=APP) as rig:
        await a_queue_is_paused_emptied_and_resumed(rig)
        await queue_settings(rig)
        await the_failed_set(rig, tmp_path)
        await jobs_are_cancelled_wherever_they_are(rig, tmp_path)
        await the_port_says_the_same(rig)
        await json_arrives_as_written(rig)
        await a_task_by_its_name(rig)
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
    with pytest.raises(rota.InvalidJob, match="not a valid queue name"):
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
        await rig.client.delete_failed("k3f9q2m7xa5t_0000001f_0")
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
        await rig.client.cancel("k3f9q2m7xa5t_0000001f_0")
    with pytest.raises(rota.InvalidJob, match="not a valid job id"):
        await rig.client.cancel("nonsense")


async def _claimed(handle: rota.JobHandle[Any]) -> bool:
    return (await handle.astatus()).place in ("claimed", "running")


async def the_port_says_the_same(rig: Rig) -> None:
    """For those without rota's client."""
    url = (await rig.urls())[0]

    def post(path: str, body: Any) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(url + path, data, rig.headers), timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def get(path: str) -> Any:
        with urllib.request.urlopen(urllib.request.Request(url + path, headers=rig.headers), timeout=30) as answer:
            return json.load(answer)

    async def asked(path: str, body: Any) -> tuple[int, Any]:
        return await asyncio.to_thread(post, path, body)

    settings = {
        "paused": True, "serial": False, "max_concurrency": 3, "rate": None, "max_waiting": None, "on_full": "refuse",
    }
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
    status, emptied = await asked("/v1/queues/web/empty", {"expected": 0})
    assert status in (200, 202) and (emptied["verb"], emptied["what"]) == ("empty", "queue 'web'")
    ended = await asyncio.to_thread(get, f"/v1/operations/{emptied['id']}?wait=20")
    assert (ended["state"], ended["count"]) == ("done", 0)
    for path, body in (
        ("/v1/queues/web/empty", {}), ("/v1/queues/web/head", {"verb": "jump"}), ("/v1/failed/retry", {}),
        ("/v1/failed/delete", {"all": True, "queue": "x"}), ("/v1/queues/web", b"\xff"), ("/v1/queues/web", []),
    ):
        status, answer = await asked(path, body)
        assert status == 400 and answer["error"] == "InvalidJob", (path, answer)


async def json_arrives_as_written(rig: Rig) -> None:
    """Numbers and the order of keys, there and back, for a caller that compares the text."""
    url = (await rig.urls())[0]
    value = '{"z":1,"a":[1.0,1e+20,12345678901234567890123],"\u00fc":{"y":null,"b":[true,"\u2028"]}}'
    job = f'{{"task":"{APP}:echo","args":[{value}],"kwargs":{{"last":{value},"first":0}}}}'

    def asked() -> Any:
        enqueue = urllib.request.Request(f"{url}/v1/jobs", job.encode(), rig.headers)
        with urllib.request.urlopen(enqueue, timeout=20) as answer:
            stored = json.load(answer)["id"]
        wait = urllib.request.Request(f"{url}/v1/jobs/{stored}?wait={PATIENCE_S}", headers=rig.headers)
        with urllib.request.urlopen(wait, timeout=2 * PATIENCE_S) as answer:
            return json.load(answer)["value"]

    arrived = json.dumps(await asyncio.to_thread(asked), ensure_ascii=False, separators=(",", ":"))
    assert arrived == f'[[{value}],{{"last":{value},"first":0}}]'


async def a_task_by_its_name(rig: Rig) -> None:
    """The client needs no code, and is told what nobody runs."""
    named = rota.NamedTask(f"{APP}:plain").using(queue="by-name")
    assert await (await rig.client.enqueue(named, 1)).aresult(PATIENCE_S) == 2
    with pytest.raises(rota.UnknownTask, match="no node has ever registered"):
        await rig.client.enqueue(rota.NamedTask(f"{APP}:nothing"), 1)


async def declarations_do_not_undo_a_pause(rig: Rig) -> None:
    await rig.client.set_queue("narrow", paused=True, max_concurrency=9)
    await rig.joined([rig.start()])
    await until(lambda: _narrow(rig, 2), "the code's limit is back")
    assert (await rig.client.set_queue("narrow", paused=True)).paused
    await rig.client.resume("narrow")


async def _narrow(rig: Rig, limit: int) -> bool:
    (record,) = await rig.read(rig.keys.queue("narrow"))
    return f'"max_concurrency":{limit}'.encode() in record.value and b'"paused":true' in record.value


# -- nodes come and go


async def test_nodes(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    async with Rig(etcd.endpoint, cluster_name, tmp_path, app=APP, sync=1, capacity=2) as rig:
        await load_is_spread_over_the_nodes(rig, tmp_path)
        await a_node_that_joins_is_given_work(rig, tmp_path)
        await a_node_serves_only_its_queues(rig, tmp_path)


async def load_is_spread_over_the_nodes(rig: Rig, folder: Path) -> None:
    """Six jobs that wait for each other, and two places in each of three nodes."""
    journal = folder / "spread"
    handles = [await rig.client.enqueue(app.together, str(journal), 6) for _ in range(6)]
    await asyncio.gather(*[handle.aresult(PATIENCE_S) for handle in handles])
    assert set(Counter(line.pid for line in read_journal(journal)).values()) == {2}


async def a_node_that_joins_is_given_work(rig: Rig, folder: Path) -> None:
    journal, flag = folder / "full", folder / "full-no-more"
    full = 2 * len(await rig.members())
    handles = [await rig.client.enqueue(app.wait_for, str(journal), str(flag)) for _ in range(full + 1)]
    await until(lambda: len(lines(journal)) == full, "every place is taken")
    pids = {line.pid for line in read_journal(journal)}
    await rig.joined([rig.start()])
    await until(lambda: len(lines(journal)) == full + 1, "the last one runs, too")
    assert read_journal(journal)[-1].pid not in pids
    flag.touch()
    await asyncio.gather(*[handle.aresult(PATIENCE_S) for handle in handles])


async def a_node_serves_only_its_queues(rig: Rig, folder: Path) -> None:
    others = len(await rig.members())
    await rig.joined([name := rig.start(queues=("special",))])
    (node,) = [node for node in await rig.members() if rig.name_of(node) == name]
    special = set(rig.runner_pids(node))
    for queue, places, has_it in (("default", 2 * others, False), ("special", 2 * others + 2, True)):
        journal = folder / f"of-{queue}"
        handles = [
            await rig.client.enqueue(app.together.using(queue=queue), str(journal), places) for _ in range(places)
        ]
        await asyncio.gather(*[handle.aresult(PATIENCE_S) for handle in handles])
        assert bool(special & {line.pid for line in read_journal(journal)}) is has_it


async def test_a_node_leaves(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    async with Rig(etcd.endpoint, cluster_name, tmp_path, app=APP, nodes=1, sync=1, capacity=0, grace_s=60.0) as rig:
        await what_has_not_begun_moves_at_once(rig, tmp_path)


async def test_a_node_is_stuck(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    async with Rig(etcd.endpoint, cluster_name, tmp_path, app=APP, nodes=1, sync=1, capacity=0) as rig:
        await what_waits_behind_long_jobs_moves(rig, tmp_path)


async def what_has_not_begun_moves_at_once(rig: Rig, folder: Path) -> None:
    """When a node is told to leave, to another one; what it runs may go on."""
    journal, flag = folder / "held", folder / "held-no-more"
    quick = await rig.client.enqueue_many(app.echo, [()] * 60)      # so that it is given more than it has places for
    await asyncio.gather(*[handle.aresult(PATIENCE_S) for handle in quick])
    running = await rig.client.enqueue(app.hold, str(journal), str(flag))
    behind = [await rig.client.enqueue(app.echo) for _ in range(3)]
    await until(lambda: lines(journal), "it runs")
    rig.guards["node0"].terminate()
    await until(lambda: _holds(rig, 1), "only what runs lies under it")
    await rig.client.aclose()
    await rig.joined([rig.start()])
    rig.client = AsyncClient(await rig.urls(), **rig.credentials())
    assert [await rig.client.handle(job.id).aresult(PATIENCE_S) for job in behind] == [((), {})] * 3
    assert rig.guards["node0"].poll() is None
    flag.touch()
    await until(lambda: rig.guards["node0"].poll() is not None, "the node has left")
    assert rig.guards["node0"].returncode == 0 and lines(journal) == ["start", "end"]
    assert await rig.client.handle(running.id).aresult(PATIENCE_S) is None


async def _holds(rig: Rig, jobs: int) -> bool:
    """All nodes together, while they leave."""
    if any(b'"active"' in record.value or b'"state"' not in record.value for record in await rig.read(rig.keys.nodes)):
        return False
    claims = [decode(Claim, record.value) for record in await rig.read(rig.keys.claims)]
    return sum(claim.pending for claim in claims if claim is not None) == jobs


async def what_waits_behind_long_jobs_moves(rig: Rig, folder: Path) -> None:
    """What a node was given ahead, because it got through so much: alone, or in a bundle of which one has begun."""
    journal, flag = folder / "long", folder / "long-no-more"
    quick = await rig.client.enqueue_many(app.echo, [()] * 60)
    await asyncio.gather(*[handle.aresult(PATIENCE_S) for handle in quick])
    long = await rig.client.enqueue_many(app.hold, [(str(journal), str(flag))] * 2)
    behind = await rig.client.enqueue(app.echo)
    await until(lambda: lines(journal), "the first of two runs")
    await rig.joined([rig.start(), rig.start()])
    assert await behind.aresult(PATIENCE_S) == ((), {})
    await until(lambda: len(lines(journal)) == 2, "the second one runs, too")
    assert len({line.pid for line in read_journal(journal)}) == 2
    flag.touch()
    assert [await handle.aresult(PATIENCE_S) for handle in long] == [None, None]


async def test_everything_stops(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    async with Rig(etcd.endpoint, cluster_name, tmp_path, app=APP) as rig:
        await jobs_outlive_all_nodes(rig, tmp_path)


async def jobs_outlive_all_nodes(rig: Rig, folder: Path) -> None:
    """kill -9 of everything that is not etcd, while one job runs, some wait, and one is due later."""
    journal = folder / "survivor"
    handles = [await rig.client.enqueue(app.survivor, str(journal), 600.0)]
    await until(lambda: lines(journal), "it runs")
    await rig.client.pause("vault")
    handles += [await rig.client.enqueue(app.plain.using(queue="vault"), number) for number in range(3)]
    handles.append(await rig.client.enqueue(app.plain.using(run_after=1.0), 1))
    for member in await rig.members():
        rig.kill_machine(member)
    await rig.client.aclose()
    await rig.joined([rig.start() for _ in range(3)])
    await until(lambda: _members(rig, 3), "the old nodes' leases have run out")
    rig.client = AsyncClient(await rig.urls(), **rig.credentials())
    await rig.client.resume("vault")
    results = [await rig.client.handle(handle.id).aresult(PATIENCE_S) for handle in handles]
    assert results == [None, 1, 2, 3, 2] and lines(journal) == ["start", "start"]


async def _members(rig: Rig, count: int) -> bool:
    return len(await rig.members()) == count


async def test_two_clusters(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    async with (
        Rig(etcd.endpoint, cluster_name, tmp_path / "one", app=APP) as rig,
        Rig(etcd.endpoint, f"{cluster_name}-two", tmp_path / "two", app=APP, nodes=1) as other,
    ):
        await clusters_on_one_etcd_never_meet(rig, other, tmp_path)


async def clusters_on_one_etcd_never_meet(rig: Rig, other: Rig, folder: Path) -> None:
    assert len(await rig.members()) == 3 and len(await other.members()) == 1
    await other.client.pause("mine")
    pids = []
    for each, name in ((rig, "one"), (other, "two")):
        mine = [pid for node in await each.members() for pid in each.runner_pids(node)]
        journal = folder / name / "journal"
        handles = [await each.client.enqueue(app.nap, str(journal)) for _ in range(12)]
        await asyncio.gather(*[handle.aresult(PATIENCE_S) for handle in handles])
        pids.append((mine, {line.pid for line in read_journal(journal)}))
    assert all(used <= set(mine) for mine, used in pids)
    handle = await rig.client.enqueue(app.plain.using(queue="mine"), 1)
    assert await handle.aresult(PATIENCE_S) == 2                # the other one's queue of that name is paused
    assert (await other.client.ajob(handle.id)).place == "unknown"
    failed = await rig.client.enqueue(app.fail_with.using(max_attempts=1), str(folder / "failed"), "value")
    with pytest.raises(rota.JobFailed):
        await failed.aresult(PATIENCE_S)
    assert len(await rig.client.failed()) == 1 and await other.client.failed() == []


# -- orphans


async def test_orphans(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    async with Rig(etcd.endpoint, cluster_name, tmp_path, app=APP, sync=4, grace_s=1.0) as rig:
        once, patient = tmp_path / "once", tmp_path / "patient"
        handle = await rig.client.enqueue(app.once_only, str(once), 600.0)
        await rig.client.enqueue(app.patient, str(patient), 600.0)
        await until(lambda: lines(once) and lines(patient), "both run")
        doomed = await rig.members()
        await rig.joined([rig.start()])
        await rig.client.aclose()
        rig.client = AsyncClient(await rig.urls(), **rig.credentials())
        killed = time.clock_gettime(time.CLOCK_BOOTTIME)
        for member in doomed:
            rig.kill_node(member)
        await until(lambda: _failed(rig, 1), "the one that may not run twice has failed")
        (failed,) = await rig.client.failed()
        with pytest.raises(rota.JobFailed, match="its node was lost while it may have been running"):
            await rig.client.handle(handle.id).aresult(PATIENCE_S)
        assert failed.reason == "lost" and "on_orphan" in failed.error and lines(once) == ["start"]
        await until(lambda: len(lines(patient)) == 2, "the other one runs again")
        assert read_journal(patient)[-1].at - killed >= 2.0         # its `requeue_delay`
        assert await rig.client.retry_failed(failed.id) == 1        # a person may decide otherwise
        await until(lambda: len(lines(once)) == 2, "it runs again")
