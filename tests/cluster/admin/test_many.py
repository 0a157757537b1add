"""What is done to many jobs, and lists of many: through both clients, the port and the command line; all or said."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import typer

import rota
from rota.client.model import Header
from rota.client.wire.codec import encode_body
from rota.client.wire.views import OperationView
from rota.cluster.admin import counts, queue_part
from rota.cluster.cli import show
from rota.cluster.cli.inspect import look
from rota.cluster.cli.manage import operate
from rota.cluster.ledger.ledger import Put, Txn, prefix_end
from rota.cluster.master.duties import operation
from rota.cluster.port import many
from rota.cluster.state.records import FailedRecord, Failure, Token, encode
from rota.testing import MemoryCluster

from . import view_tasks as app

TASK = app.careful.name


@pytest.fixture(scope="module")
def cluster() -> Iterator[MemoryCluster]:
    with MemoryCluster() as made:
        yield made


@pytest.fixture(autouse=True)
def clean(cluster: MemoryCluster) -> Iterator[None]:
    yield
    cluster.client.delete_failed(all=True)
    cluster.client.cancel_many(all=True)


def fill(cluster: MemoryCluster, failed: int, queue: str = "mail") -> None:
    keys = cluster._keys
    puts = []
    for number in range(failed):
        bundle = f"0s8sf4s75de1-{number:08x}"
        token = Token("m:gone", queue, 0, 1, 1, "async", 0)
        body = encode_body(Header(bundle, "m:gone", queue, "async", [0], [1], 0.0), [b"x"])
        record = FailedRecord(f"{bundle}/0", "m:gone", queue, "ValueError: no", 5, "n", 1.0)
        puts.append(Put(keys.failed_job(queue, bundle, 0), encode(record)))
        puts.append(Put(keys.failure(bundle, 0), msgspec.msgpack.encode(Failure(body, "", encode(token)))))

    async def put() -> None:
        for start in range(0, len(puts), 100):
            await cluster._ledger.commit(Txn((), tuple(puts[start : start + 100])))

    cluster._call(put())


def ask(cluster: MemoryCluster, path: str, body: Any = None) -> tuple[int, Any, Any]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(cluster.url + path, data, {"Authorization": f"Bearer {cluster.token}"}), timeout=20
        ) as answer:
            return answer.status, json.load(answer), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), error.headers


def test_an_operation_has_an_id_a_progress_and_an_end(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(operation, "SAVE_S", 0.0)
    monkeypatch.setattr(many, "ENDS_SOON_S", 0.0)
    fill(cluster, 200)
    seen: list[OperationView] = []
    assert cluster.client.retry_failed(queue="mail", on_progress=seen.append) == 200
    assert len({view.id for view in seen}) == 1 and not seen[0].is_over
    last = seen[-1]
    assert (last.verb, last.what, last.state, last.count, last.total, last.left) == (
        "retry", "queue 'mail'", "done", 200, 200, 0
    )
    assert cluster.client.operation(last.id) == last == cluster.client.operations()[0]
    status, page, _ = ask(cluster, f"/v1/operations/{last.id}")
    assert (status, page["state"], page["count"]) == (200, "done", 200)
    operate.operations(last.id, wait=True, url=cluster.url)
    assert last.id in (shown := capsys.readouterr().out) and "retry queue 'mail'" in shown
    assert ask(cluster, "/v1/operations/nothing")[0] == 404
    with pytest.raises(rota.OperationUnknown):
        cluster.client.operation("nothing")


def test_the_port_tells_of_what_goes_on(cluster: MemoryCluster) -> None:
    fill(cluster, 30)
    status, page, headers = ask(cluster, "/v1/failed/retry?wait=0", {"queue": "mail"})
    if status == 202:           # as a rule; it may have ended
        assert headers["Location"] == f"/v1/operations/{page['id']}"
    status, page, _ = ask(cluster, f"/v1/operations/{page['id']}?wait=20")
    assert (status, page["state"], page["count"]) == (200, "done", 30)
    status, page, _ = ask(cluster, "/v1/queues/mail/empty", {"expected": 29})
    assert status == 400 and "has 30 waiting jobs, not 29" in page["message"]
    status, page, _ = ask(cluster, "/v1/queues/mail/empty", {"expected": 30})
    assert (status, page["state"], page["count"]) == (200, "done", 30)
    for path, body in (
        ("/v1/failed/delete", {"queue": "mail"}), ("/v1/failed/retry", {}), ("/v1/jobs/cancel", {"queue": "mail"}),
        ("/v1/jobs/cancel", {}), ("/v1/queues/mail/empty", {"expected": -1}),
    ):
        assert ask(cluster, path, body)[0] == 400, (path, body)


async def test_the_other_client(cluster: MemoryCluster) -> None:
    fill(cluster, 3)
    seen: list[OperationView] = []
    async with rota.AsyncClient(cluster.url) as client:
        assert await client.retry_failed(all=True, on_progress=seen.append) == 3
        assert await client.cancel_many(task="m:gone") == 3
        assert (await client.operation(seen[-1].id)).count == 3
        assert [view.verb for view in (await client.operations())[:2]] == ["cancel", "retry"]
        with pytest.raises(rota.InvalidJob, match="no job fits"):
            await client.cancel_many(task="m:gone")


def test_commands(cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]) -> None:
    fill(cluster, 5)
    operate.retry(all=True, url=cluster.url)
    assert "5 jobs are queued again" in capsys.readouterr().out
    operate.cancel(queue="mail", yes=True, url=cluster.url)
    assert "5 jobs cancelled, or asked to stop" in capsys.readouterr().out
    with pytest.raises(typer.BadParameter):
        operate.cancel(["0s8sf4s75de1_00000000_0"], queue="mail", url=cluster.url)


def test_lists_are_whole_or_say_where_they_go_on(cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]) -> None:
    fill(cluster, 1_250)
    assert len({view.id for view in cluster.client.failed(limit=5_000)}) == 1_250
    assert len(cluster.client.failed("mail", limit=1_100)) == 1_100
    assert not cluster.client.failed("other")
    assert ask(cluster, "/v1/failed?limit=1001")[0] == 400
    found, path = [], "/v1/failed?queue=mail&limit=400"
    while path:
        _, page, headers = ask(cluster, path)
        found += [entry["id"] for entry in page]
        path = headers.get("Link", "").partition(">")[0].removeprefix("<")
    assert len(found) == len(set(found)) == 1_250
    assert ask(cluster, "/v1/failed?queue=mail&after=other/x")[0] == 400
    operate.list_(None, 50, url=cluster.url)
    printed = capsys.readouterr()
    assert printed.out.count("ValueError: no") == 50 and "there are more than these 50" in printed.err
    look.finished(None, 50, url=cluster.url)
    assert not capsys.readouterr().err


def test_counts_are_exact_or_say_so(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for queue, jobs in (("a", 30), ("b", 5), ("c", 7)):
        cluster.client.pause(queue)
        cluster.client.enqueue_many(rota.NamedTask(TASK).using(queue=queue), [(n,) for n in range(jobs)])
    fill(cluster, 30, "a")
    rows = {view.queue: view for view in cluster.client.queues()}
    assert [(rows[name].waiting, rows[name].exact) for name in "abc"] == [(30, True), (5, True), (7, True)]
    assert (rows["a"].failed, rows["a"].paused) == (30, True)
    monkeypatch.setitem(counts.Counts.__init__.__kwdefaults__, "count_max", 20)
    for limit, most in (("COUNT_MAX", 20), ("COUNT_PER_QUEUE", 0), ("READ_PER_QUEUE", 0)):
        monkeypatch.setattr(queue_part, limit, most)
    for read_max in (100, 25):          # the second one: so many in all that later queues are only seen to be there
        monkeypatch.setattr(queue_part, "READ_MAX", read_max)
        rows = {view.queue: view for view in cluster.client.queues()}
        assert rows["a"].failed == 20 and "failed" in rows["a"].at_least and not rows["a"].exact
        assert rows["b"].waiting > 0 and rows["c"].waiting > 0
    show.queues(list(rows.values()))
    assert "20+" in capsys.readouterr().out
    assert "failed" in cluster.client.stats().at_least
    for queue in "abc":
        cluster.client.resume(queue)
        assert queue not in rows or rows[queue].paused


def test_a_paused_queue_is_never_no_queue(cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.client.set_queue("silent", paused=True, max_concurrency=4)
    show.queues([view for view in cluster.client.queues() if view.queue == "silent"])
    assert "paused, at most 4 at a time" in capsys.readouterr().out
    cluster.client.set_queue("silent", paused=False, max_concurrency=None)


def test_keys_of_operations_do_not_pile_up(cluster: MemoryCluster) -> None:
    async def keys(prefix: bytes) -> tuple[Any, ...]:
        return (await cluster._ledger.read(prefix, prefix_end(prefix))).records

    fill(cluster, failed=2)
    assert cluster.client.delete_failed(all=True) == 2
    assert not cluster._call(keys(cluster._keys.operations))
    ended = cluster._call(keys(cluster._keys.operations_ended))
    assert ended and all(record.lease for record in ended)
