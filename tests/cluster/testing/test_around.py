"""What is round jobs, through `rota.testing`: the clients, HTTP, and jobs inline."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

import rota
import rota.testing
from rota.client.calls import outgoing
from rota.worker.runner import around

from . import around_tasks as app


@pytest.fixture(autouse=True)
def steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "steps", [(0, app.stamp)])
    monkeypatch.setattr(around, "steps", [(0, app.note)])
    app.told.clear()


def post(cluster: rota.testing.MemoryCluster, job: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{cluster.url}/v1/jobs", json.dumps(job).encode(), {"Authorization": f"Bearer {cluster.token}"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_inline() -> None:
    with rota.testing.inline():
        assert app.pay.enqueue({"cents": "5"}).result() == ("till", 5, {"stamp": "yes"})
        asked = app.apay.using(headers={"a": "b"})
        assert asked.enqueue(app.Sum(cents=6)).result() == ("till", 6, {"a": "b", "stamp": "yes"})
    assert app.told == ["in", "till open", "out", "in", "till open", "out", "till shut", "till shut"]


def test_a_cluster_in_memory_and_http() -> None:
    with rota.testing.MemoryCluster() as cluster:
        handles = app.pay.enqueue_many([({"cents": n},) for n in range(3)])
        assert handles.results(60) == [("till", n, {"stamp": "yes"}) for n in range(3)]
        assert app.Paying.task.enqueue({"cents": 2}).result(60) == ("till", 2)
        made = post(cluster, {"task": app.apay.name, "args": [{"cents": 7}], "headers": {"from": "curl"}})
        assert cluster.client.handle(made["id"]).result(60) == ["till", 7, {"from": "curl"}]
        wrong = post(cluster, {"task": app.apay.name, "args": [{"cents": "many"}]})
        with pytest.raises(rota.JobFailed, match="argument total is not valid: cents") as failed:
            cluster.client.handle(wrong["id"]).result(60)
        assert failed.value.attempts == 1
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(cluster, {"task": app.apay.name, "args": [{}], "headers": {"a b": "x"}})
        assert "not a valid header name" in json.load(refused.value)["message"]
        cluster.client.schedules.put("tick", app.pay.using(headers={"s": "1"}), ({"cents": 1},), every=60)
        cluster.travel(seconds=61)
        assert app.paid[-1] == {"s": "1", "stamp": "yes"}
    assert app.told[-1] == "till shut"
