"""`rota.flow`: a graph that is stored as one, through the clients, on a cluster in memory whose time travels."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

import rota
from rota.client.api import flows as client_flows
from rota.client.ids import parse_job_id
from rota.client.model import Enqueue
from rota.client.wire.views import FlowView
from rota.cluster.ledger.ledger import Delete, Txn
from rota.testing import MemoryCluster, inline

from . import flow_tasks as app
from .test_flows import below, of_the_master, until


@pytest.fixture
def cluster() -> Iterator[MemoryCluster]:
    app.events.clear()
    app.broken.clear()
    app.gate.set()
    with MemoryCluster() as made:
        yield made
    app.gate.set()


def left(cluster: MemoryCluster) -> list[str]:
    """What is in the store of flows, and of what waits."""
    keys = cluster._keys
    areas = (
        keys.awaiting, keys.inputs, keys.flows, keys.flow_sections, keys.flows_open, keys.flows_ended, keys.graphs,
        keys.bodies, keys.failed,
    )
    return [f"{area.decode()}{key}" for area in areas for key in below(cluster, area)]


def over(cluster: MemoryCluster, flow: rota.FlowHandle) -> None:
    """The time that it is kept is over."""
    async def now() -> None:
        await cluster._ledger.commit(Txn((), (Delete(cluster._keys.flow_ended(flow.id)),)))

    cluster._call(now())
    of_the_master(cluster, "sweep")


def post(cluster: MemoryCluster, path: str, body: Any) -> Any:
    request = urllib.request.Request(
        f"{cluster.url}{path}", json.dumps(body).encode(), {"Authorization": f"Bearer {cluster.token}"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_a_flow_has_a_name_a_state_and_a_result(cluster: MemoryCluster) -> None:
    app.gate.clear()
    with rota.flow("import") as flow:
        parts = app.part.enqueue_many([(f"{number}",) for number in range(70)])
        total = app.acombine.enqueue(parts)  # type: ignore[arg-type]
    view = flow.status()
    assert (view.name, view.state, view.jobs, view.last) == ("import", "running", 71, [total.id])
    assert [len(part.ids) for part in view.parts] == [60, 10, 1] and view.parts[2].after == [0, 1]
    assert view.counts["awaiting"] == 1 and sum(view.counts.values()) == 71
    with pytest.raises(rota.ResultTimeout, match="of 71 jobs"):
        flow.wait(0.05)
    app.gate.set()
    assert flow.result(60) == [f"{number}" for number in range(70)]
    again = rota.flow_handle(flow.id)
    assert again.wait(60).state == "done" and again.results() == [flow.result()]
    assert again.status().counts == {"ok": 71}
    assert [found.id for found in cluster.client.flows("import").flows] == [flow.id]
    over(cluster, flow)
    assert left(cluster) == []
    with pytest.raises(rota.FlowUnknown):
        flow.status()


def test_nothing_begins_before_all_is_there_and_an_exception_stores_nothing(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_flows, "WHOLE_MAX", 0)       # as one of many bundles is
    monkeypatch.setattr(client_flows, "BUNDLES_PER_FRAME", 2)
    sent, send = [], client_flows._send

    async def watched(engine: Any, frame: list[Enqueue]) -> None:
        assert app.events == []
        sent.append(len(frame))
        await send(engine, frame)

    monkeypatch.setattr(client_flows, "_send", watched)
    with rota.flow("slow") as flow:
        jobs = [app.part.using(priority=number).enqueue(f"{number}") for number in range(6)]
        last = app.finish.using(after=jobs).enqueue()
        assert app.events == [] and left(cluster) == []
    assert flow.result(60) == "finished" and last.result(60) == "finished"
    assert sent == [1, 2, 2, 1, 1]
    with pytest.raises(ZeroDivisionError), rota.flow("broken"):
        app.part.enqueue("never")
        1 / 0       # noqa: B018
    cluster.settle()
    assert "never" not in app.events


@pytest.mark.parametrize("came", [1, 3])
def test_a_client_that_dies_while_it_stores_leaves_nothing(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch, came: int
) -> None:
    monkeypatch.setattr(client_flows, "WHOLE_MAX", 0)
    monkeypatch.setattr(client_flows, "BUNDLES_PER_FRAME", 1)
    sent, send = [0], client_flows._send

    async def dies(engine: Any, frame: list[Enqueue]) -> None:
        if sent[0] == came:
            raise KeyError("killed")
        sent[0] += 1
        await send(engine, frame)

    monkeypatch.setattr(client_flows, "_send", dies)
    handles: list[rota.JobHandle[Any]] = []
    with pytest.raises(KeyError), rota.flow("gone") as flow:
        handles = [app.part.using(priority=number).enqueue(f"{number}") for number in range(5)]
    assert len(below(cluster, cluster._keys.awaiting)) == came
    assert "is being stored" in handles[0].status().why
    with pytest.raises(rota.FlowUnknown):
        flow.status()
    opened = cluster._keys.section_open(flow.id)
    cluster._call(cluster._ledger.commit(Txn((), (Delete(opened),))))     # its lease is over
    until(lambda: left(cluster) == [])
    assert app.events == []
    monkeypatch.setattr(client_flows, "_send", send)


def test_what_comes_too_late_is_refused(cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client was suspended for longer than a section may take."""
    monkeypatch.setattr(client_flows, "WHOLE_MAX", 0)
    send = client_flows._send

    async def late(engine: Any, frame: list[Enqueue]) -> None:
        if (terms := frame[0].terms) is not None and terms.flow is not None and terms.flow.part == "last":
            opened = cluster._keys.section_open(terms.flow.section)
            cluster._call(cluster._ledger.commit(Txn((), (Delete(opened),))))
        await send(engine, frame)

    monkeypatch.setattr(client_flows, "_send", late)
    with pytest.raises(rota.InvalidJob, match="too long"), rota.flow("late"):
        for number in range(3):
            app.part.using(priority=number).enqueue(f"{number}")
    until(lambda: left(cluster) == [])
    assert app.events == []


def test_an_empty_block_is_done(cluster: MemoryCluster) -> None:
    with rota.flow("empty") as flow:
        none = app.part.enqueue_many([])
    assert flow.wait(0).state == "done" and flow.results() == [] and flow.cancel() == flow.retry() == 0
    assert len(none) == 0 and left(cluster) == []
    with rota.flow("gathers-nothing") as flow:
        app.acombine.enqueue(app.part.enqueue_many([]))  # type: ignore[arg-type]
    assert flow.result(60) == []


def test_what_has_failed_is_retried_and_the_rest_goes_on(cluster: MemoryCluster) -> None:
    app.broken.add("b")
    with rota.flow("mends") as flow:
        parts = [app.part.enqueue(name) for name in "abc"]
        app.combine.enqueue(*parts)
    view = flow.wait(60)
    assert view.state == "stuck" and view.failed == [parts[1].id]
    assert flow.status().counts == {"ok": 2, "failed": 1, "awaiting": 1}
    with pytest.raises(rota.FlowStuck, match=parts[1].id):
        flow.result(60)
    app.broken.clear()
    assert flow.retry() == 1
    assert flow.result(60) == ["A", "B", "C"]
    assert flow.status().counts == {"ok": 4}
    over(cluster, flow)
    assert left(cluster) == []


def test_it_is_cancelled_as_a_whole(cluster: MemoryCluster) -> None:
    app.gate.clear()
    with rota.flow("stops") as flow:
        parts = app.part.enqueue_many([(f"{number}",) for number in range(130)])
        later = app.part.using(run_after=60).enqueue("later")
        after = app.finish.using(after=[*parts, later], on_upstream="run").enqueue()
        app.finish.using(after=after).enqueue("further")
    until(lambda: flow.status().counts.get("running"))
    assert flow.cancel() == 133
    until(lambda: flow.status().counts.get("cancelled", 0) > 60)
    app.gate.set()
    assert flow.wait(60).state == "failed"
    assert "finished" not in app.events and "further" not in app.events
    with pytest.raises(rota.RotaError):
        flow.results()
    over(cluster, flow)
    cluster.settle()
    assert left(cluster) == []


def test_a_job_adds_to_its_own_flow(cluster: MemoryCluster) -> None:
    with rota.flow("grows") as flow:
        app.grows.enqueue(3)
    assert flow.wait(60).state == "done"
    view = flow.status()
    assert view.jobs == 5 and view.counts == {"ok": 5}
    assert flow.results() == [flow.id, [[1, 2, 3]]]
    with pytest.raises(rota.InvalidJob, match="is over"), flow.add():
        app.finish.enqueue()
    app.gate.clear()
    with rota.flow("from-outside") as other:
        first = app.part.enqueue("first")
    with other.add():
        app.combine.enqueue(first)
    app.gate.set()
    assert other.result(60) == ["FIRST"]
    for one in (flow, other):
        over(cluster, one)
    assert left(cluster) == []


def test_a_failed_child_that_is_taken_in_stride(cluster: MemoryCluster) -> None:
    """The flow is over when what failed is deleted; what says "run" runs before."""
    app.broken.add("a")
    with rota.flow("goes-on") as flow:
        child = app.part.enqueue("a")
        app.kinds.using(on_upstream="run").enqueue(child)
    until(lambda: app.events == [["JobFailed"]])
    assert flow.wait(60).state == "stuck"
    cluster.client.delete_failed(ids=[child.id])
    assert flow.wait(60).state == "failed" and flow.result() == ["JobFailed"]
    over(cluster, flow)
    assert left(cluster) == []


def test_results_live_as_long_as_the_flow(cluster: MemoryCluster) -> None:
    app.gate.clear()
    with rota.flow("keeps") as flow:
        app.add.using(keep_result=1).enqueue(1)
        app.part.enqueue("late")
        app.silent.enqueue("s")
    until(lambda: flow.status().counts.get("ok") == 1)
    results = cluster._keys.results
    cluster._call(cluster._ledger.commit(Txn((), (Delete(results, results[:-1] + b"0"),))))     # its time is over
    app.gate.set()
    assert flow.wait(60).state == "done"
    with pytest.raises(rota.JobUnknown, match="keep_result=0"):
        flow.results()
    entries = cluster.client.flow_entries(flow.id)
    assert len(entries) == 3


def test_what_no_flow_takes(cluster: MemoryCluster) -> None:
    with pytest.raises(rota.InvalidJob, match="name of a flow"):
        rota.flow("no/slash")
    with pytest.raises(rota.InvalidJob, match="flow id"):
        rota.flow_handle("no such thing")
    for using, why in (
        ({"level": "none"}, "durably"), ({"unique_key": "u"}, "unique key"), ({"idempotency_key": "i"}, "idempotency"),
    ):
        with pytest.raises(rota.InvalidJob, match=why), rota.flow("refuses"):
            app.finish.using(**using).enqueue()  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="already"), rota.flow("one"), rota.flow("two"):
        pass
    flow = rota.flow("twice")
    with flow:
        pass
    with pytest.raises(RuntimeError, match="used once"), flow:
        pass
    with pytest.raises(rota.InvalidJob, match="one client"), rota.flow("of-another"):
        rota.Client(cluster.url, **cluster.credentials).enqueue(app.finish)
    with pytest.raises(rota.UnknownTask), rota.flow("unknown-task"):
        app.finish.enqueue()
        cluster.client.enqueue("no.such:task")
    cluster.settle()
    assert app.events == [] and left(cluster) == []


async def test_from_coroutines(cluster: MemoryCluster) -> None:
    async with rota.AsyncClient(cluster.url, **cluster.credentials) as client:
        async with client.flow("async") as flow:
            parts = await client.enqueue_many(app.part, [("a",), ("b",)])
            await client.enqueue(app.acombine, parts)  # type: ignore[arg-type]
        assert await flow.aresult(60) == ["A", "B"]
        assert (await flow.await_()).state == "done" and (await flow.astatus()).jobs == 3
        assert await flow.acancel() == await flow.aretry() == 0
        assert [one.id for one in (await client.flows()).flows] == [flow.id]
    async with rota.flow("default") as flow:
        await app.part.aenqueue("c")
    assert await flow.aresults(10) == ["C"]


def test_over_http(cluster: MemoryCluster) -> None:
    made = post(cluster, "/v1/flows", {"name": "json", "jobs": [
        {"ref": "a", "task": app.part.name, "args": ["a"]}, {"ref": "b", "task": app.part.name, "args": ["b"]},
        {"task": app.finish.name, "after": ["a", "b"], "on_upstream": "cancel"},
    ]})
    flow = rota.flow_handle(made["id"])
    assert flow.wait(60).state == "done" and app.events[-1] == "finished"
    assert flow.status().last == [made["jobs"][2]] and flow.status().parts[2].after == [0, 1]
    many = post(cluster, "/v1/flows", {"name": "more", "jobs": [
        {"ref": f"{number}", "task": app.finish.name, "after": [f"{number - 1}"] if number else []}
        for number in range(40)
    ]})
    assert rota.flow_handle(many["id"]).wait(20).counts == {"ok": 40}
    for body in ({"name": "", "jobs": [{"task": app.finish.name}]}, {"name": "x", "jobs": []}, {"name": "x"}, {
        "name": "x", "jobs": [{"ref": "a", "task": app.finish.name}] * 2
    }):
        with pytest.raises(urllib.error.HTTPError, match="400"):
            post(cluster, "/v1/flows", body)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        post(cluster, "/v1/flows/0123456789ab-00000000/cancel", {})


def test_flows_are_listed_in_parts(cluster: MemoryCluster) -> None:
    ids = []
    for number in range(5):
        with rota.flow("many" if number % 2 else "others") as flow:
            app.finish.enqueue()
        ids.append(flow.id)
    page = cluster.client.flows(limit=2)
    found = list(page.flows)
    while page.next:
        page = cluster.client.flows(limit=2, after=page.next)
        found += page.flows
    assert {view.id for view in found} == set(ids) and len(found) == 5
    assert {view.name for view in cluster.client.flows("many").flows} == {"many"}
    assert all(isinstance(view, FlowView) and not view.parts for view in found)


def test_inline_runs_a_flow_when_its_block_ends() -> None:
    app.events.clear()
    app.broken.clear()
    app.gate.set()
    with inline() as jobs:
        with rota.flow("inline") as flow:
            parts = app.part.enqueue_many([("a",), ("b",)])
            app.acombine.enqueue(parts)  # type: ignore[arg-type]
            assert jobs.ran == []
        assert flow.result() == ["A", "B"] and flow.status().state == "done"
        with rota.flow("grows") as flow:
            app.grows.enqueue(2)
        assert flow.status().jobs == 4 and flow.status().counts == {"ok": 4}
        app.broken.add("c")
        with rota.flow("stuck") as flow:
            app.combine.enqueue(app.part.enqueue("c"))
        assert flow.wait().state == "stuck"
        with pytest.raises(rota.FlowStuck):
            flow.result()
        with pytest.raises(ZeroDivisionError), rota.flow("broken"):
            app.part.enqueue("never")
            1 / 0       # noqa: B018
        assert "never" not in app.events


def test_a_job_knows_its_flow(cluster: MemoryCluster) -> None:
    with rota.flow("plain") as flow:
        handle = app.finish.enqueue()
    assert flow.wait(60).is_over and parse_job_id(handle.id)[0].partition("-")[0] == flow.id.partition("-")[0]
    assert rota.current_flow() is None
