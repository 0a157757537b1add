"""Jobs that wait for other jobs are counted wherever jobs are."""

from __future__ import annotations

import json
import urllib.request

import rota.testing
from rota.client.wire.views import StatsView

from . import flow_tasks as app


def asked(cluster: rota.testing.MemoryCluster, path: str) -> str:
    request = urllib.request.Request(cluster.url + path, headers={"Authorization": f"Bearer {cluster.token}"})
    with urllib.request.urlopen(request) as answer:
        return str(answer.read().decode())


def test_in_queues_statistics_overview_metrics_and_pages() -> None:
    app.gate.clear()
    try:
        with rota.testing.MemoryCluster() as cluster:
            first = app.part.enqueue("a")
            later = app.combine.using(queue="fan-in").enqueue(first)
            app.combine.using(queue="fan-in").enqueue_many([(first,), (first,)])
            (row,) = [row for row in cluster.client.queues() if row.queue == "fan-in"]
            assert (row.awaiting, row.waiting, row.exact) == (3, 0, True)
            stats: StatsView = cluster.client.stats()
            assert stats.awaiting == 3
            rows = json.loads(asked(cluster, "/v1/queues"))
            assert [row["awaiting"] for row in rows if row["queue"] == "fan-in"] == [3]
            seen = json.loads(asked(cluster, "/v1/overview"))
            assert seen["totals"]["awaiting"] == 3
            assert [row["awaiting"] for row in seen["queues"] if row["queue"] == "fan-in"] == [3]
            assert 'rota_queue_jobs{queue="fan-in",state="awaiting"} 3.0' in asked(cluster, "/metrics")
            assert "3 await others" in asked(cluster, "/") and later.id in asked(cluster, "/jobs?place=awaiting")
            app.gate.set()
            later.result(60)
            cluster.settle()
            assert cluster.client.stats().awaiting == 0
    finally:
        app.gate.set()
