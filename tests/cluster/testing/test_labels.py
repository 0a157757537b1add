"""Tasks that require what not every node has."""

from __future__ import annotations

import pytest

import rota
from rota.testing import MemoryCluster

from . import unique_tasks as app


def test_a_node_that_has_it_runs_it() -> None:
    with MemoryCluster(labels={"gpu", "large", "fast"}) as cluster:
        assert app.train.enqueue("net").result(60) == "net"
        (node,) = cluster.client.nodes()
        assert node.labels == ["fast", "gpu", "large"] and app.train.name in node.tasks


def test_where_nobody_has_it_the_job_waits_and_says_why() -> None:
    with MemoryCluster(labels={"gpu"}) as cluster:
        handle = app.train.enqueue("net")
        why = handle.status().why
        assert "requires gpu and large" in why and why.endswith("was started with --labels gpu,large")
        view = next(view for view in cluster.client.tasks() if view.name == app.train.name)
        assert (view.requires, view.nodes) == (("gpu", "large"), [])
        assert app.plain.enqueue("others run").result(60) == "others run"


def test_what_is_no_label_is_refused() -> None:
    with pytest.raises(rota.InvalidJob, match="not a valid label"):
        rota.task(name="m:f", requires={"a b"})(lambda: None)


def test_one_enqueue_may_require_more_than_its_task() -> None:
    with MemoryCluster(labels={"gpu"}) as cluster:
        assert app.plain.using(requires={"gpu"}).enqueue("here").result(60) == "here"
        handle = app.plain.using(requires=["gpu", "zone-b"]).enqueue("nowhere")
        assert handle.status().why.startswith("it requires gpu and zone-b, and no node")
        assert cluster.client.cancel(handle.id) == "cancelled"
        with pytest.raises(rota.InvalidJob, match="not a valid label"):
            app.plain.using(requires={"a b"})
        with pytest.raises(rota.InvalidJob, match="stored durably"):
            app.plain.using(requires={"gpu"}, level="none").enqueue()
