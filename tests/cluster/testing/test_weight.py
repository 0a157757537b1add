"""Heavy jobs and tenants, through the clients, HTTP and class workers, on a cluster in memory."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rota
from rota.testing import MemoryCluster, inline

from . import unique_tasks as app


@pytest.fixture
def cluster() -> Iterator[MemoryCluster]:
    app.events.clear()
    app.gate.clear()
    with MemoryCluster(sync=4) as made:
        yield made
        app.gate.set()


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_heavy_job_takes_several_slots(cluster: MemoryCluster) -> None:
    first, second = (app.render.enqueue(film) for film in ("a", "b"))
    until(lambda: app.events == ["begin a"])
    until(lambda: "it takes 3 slots, and no node that could run it has so many free now" in second.status().why)
    assert app.plain.enqueue("there is a slot").result(60) == "there is a slot"
    app.gate.set()
    assert (first.result(60), second.result(60)) == ("a", "b")
    assert [word for word in app.events if "plain" not in word] == ["begin a", "end a", "begin b", "end b"]
    assert next(view for view in cluster.client.tasks() if view.name == app.render.name).weight == 3


def test_a_job_that_is_heavier_than_any_node_says_so(cluster: MemoryCluster) -> None:
    handle = app.plain.using(weight=5).enqueue()
    why = handle.status().why
    assert why.startswith("it takes 5 slots, and no node that could run it has more than 4: start one with more")
    assert app.plain.using(weight=4).enqueue("fits").result(60) == "fits"
    for weight in (0, 10_001, 1.5, True):
        with pytest.raises(rota.InvalidJob, match="weight"):
            app.plain.using(weight=weight)  # type: ignore[arg-type]
    with pytest.raises(rota.ConfigError, match="stored durably"):
        rota.task(name="m:f", weight=2, level="none")(lambda: None)


def test_tenants_take_turns(cluster: MemoryCluster) -> None:
    cluster.client.pause("default")
    for number in range(30):
        app.export.enqueue("ann", number)
    handles = [app.export.enqueue("bob", number) for number in range(2)]
    cluster.client.resume("default")
    for handle in handles:
        assert handle.result(60) == "bob"
    before = [event for event in app.events[: app.events.index("bob 1")] if event.startswith("ann")]
    assert len(before) < 20                 # (jobs run side by side, so the order of what they say is not exact)


def ask(cluster: MemoryCluster, path: str, body: object = None) -> tuple[int, Any]:
    request = urllib.request.Request(
        cluster.url + path, None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Bearer {cluster.token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, None


def test_over_http_and_by_class(cluster: MemoryCluster) -> None:
    body = {"task": app.plain.name, "weight": 9, "fair_key": "ann", "requires": ["gpu"], "rate_key": "host"}
    status, page = ask(cluster, "/v1/jobs", body)
    assert status < 300 and "requires gpu" in ask(cluster, f"/v1/jobs/{page['id']}")[1]["why"]
    for wrong in ({"weight": 0}, {"fair_key": "\n"}, {"requires": ["a b"]}):
        assert ask(cluster, "/v1/jobs", body | wrong)[0] == 400
    assert "requires gpu" in app.Render.perform_async("ann").status().why


def test_what_contradicts_itself_is_refused() -> None:
    for options in ({"fair_key": "nobody"}, {"fair_key": 5}, {"fair_key": "x", "level": "delayed"}):
        with pytest.raises(rota.ConfigError):
            rota.task(name="m:f", **options)(lambda x: None)  # type: ignore[call-overload]
    with inline():
        assert app.export.using(fair_key="somebody", weight=2).enqueue("ann", 1).result() == "ann"
