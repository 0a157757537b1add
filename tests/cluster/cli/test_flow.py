"""`rota flow`, `rota flows`, on a cluster in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import Result
from typer.testing import CliRunner

import rota
from rota.client.api import drawing
from rota.cluster.cli.app import app as command
from rota.testing import MemoryCluster

from ..testing import flow_tasks as app


@pytest.fixture
def cluster() -> Iterator[MemoryCluster]:
    app.events.clear()
    app.broken.clear()
    app.gate.set()
    with MemoryCluster() as made:
        yield made
    app.gate.set()


def asked(cluster: MemoryCluster, *words: str) -> Result:
    return CliRunner().invoke(command, [*words, "--url", cluster.url])


def stuck(name: str) -> tuple[rota.FlowHandle, rota.JobHandle[str]]:
    app.broken.add("b")
    with rota.flow(name) as flow:
        app.part.enqueue("a")
        broken = app.part.using(queue="other").enqueue("b")
        app.combine.using(after=broken).enqueue()
    assert flow.wait(60).state == "stuck"
    return flow, broken


def test_it_is_drawn_in_three_ways(cluster: MemoryCluster) -> None:
    flow, broken = stuck("import")
    view = flow.status()
    shown = asked(cluster, "flow", "import")
    assert shown.exit_code == 0 and f"import  {flow.id} is stuck: " in shown.output
    for line in drawing.as_text(view).splitlines():
        assert line in shown.output
    assert f"`rota job {broken.id}` says why, `rota flow {flow.id} --retry` runs it again" in shown.output
    assert asked(cluster, "flow", flow.id).output == shown.output
    assert asked(cluster, "flow", "import", "--dot").output.rstrip("\n") == drawing.as_dot(view)
    assert asked(cluster, "flow", "import", "--mermaid").output.rstrip("\n") == drawing.as_mermaid(view)
    told = json.loads(asked(cluster, "flow", "import", "--json").output)
    assert (told["id"], told["state"], told["failed"]) == (flow.id, "stuck", [broken.id])
    unknown = asked(cluster, "flow", "no-such")
    assert isinstance(unknown.exception, rota.FlowUnknown) and "no-such" in str(unknown.exception)


def test_it_is_waited_for_retried_and_cancelled(cluster: MemoryCluster) -> None:
    flow, _ = stuck("mends")
    assert asked(cluster, "flow", flow.id, "--wait").exit_code == 1         # it can go on no more
    app.broken.clear()
    mended = asked(cluster, "flow", flow.id, "--retry", "--wait")
    assert mended.exit_code == 0 and "1 jobs are tried again" in mended.output
    assert f"{flow.id} is done: 3 ok" in mended.output
    with rota.flow("mends") as other:
        app.finish.using(after=app.part.using(run_after=3600).enqueue("later")).enqueue()
    ended = asked(cluster, "flow", "mends", "--cancel", "--wait")           # the newest of the name
    assert ended.exit_code == 1 and "2 jobs are cancelled" in ended.output
    assert f"{other.id} is failed: 2 cancelled" in ended.output


def test_they_are_listed_the_newest_first(cluster: MemoryCluster) -> None:
    assert "no flow goes on" in asked(cluster, "flows").output
    ids = []
    for name in ("first", "second", "first"):
        with rota.flow(name) as flow:
            app.finish.enqueue()
        flow.wait(60)
        ids.append(flow.id)
    told = json.loads(asked(cluster, "flows", "--json").output)
    assert [view["id"] for view in told["flows"]] == ids[::-1]
    rows = [line.split() for line in asked(cluster, "flows", "first").output.splitlines()[1:]]
    assert [row[:6] for row in rows] == [[id_, "first", "done", "1", "1", "0"] for id_ in (ids[2], ids[0])]
    cut = asked(cluster, "flows", "--limit", "2")
    assert ids[0] not in cut.output and "there are more than these 2" in cut.output
