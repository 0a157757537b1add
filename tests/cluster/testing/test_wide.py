"""Bundles of more than 60 jobs, on a cluster in memory."""

from __future__ import annotations

import json
import urllib.request

import pytest

import rota
import rota.testing
from rota.client.ids import parse_job_id

from . import wide_tasks as app


def test_a_large_call_from_its_enqueue_to_single_jobs_of_it() -> None:
    count = 2_500
    app.BAD.update({1_900, 2_400})
    with rota.testing.MemoryCluster() as cluster:
        client = cluster.client
        client.pause("default")
        handles = list(app.same.enqueue_many([(number,) for number in range(count)]))
        counts: dict[str, int] = {}
        for handle in handles:
            bundle, index = parse_job_id(handle.id)
            counts[bundle] = max(counts.get(bundle, 0), index + 1)
        assert list(counts.values())[:16] == [60] * 16 and 130 < max(counts.values()) < 150
        cancelled = next(handle for handle in handles[2_000:] if parse_job_id(handle.id)[1] == 101)
        assert handles[2_300].status().place == "waiting" and cancelled.cancel() == "cancelled"
        client.resume("default")
        for number, handle in enumerate(handles):
            if number not in app.BAD and handle is not cancelled:
                assert handle.result(60) == number
        for wrong in (handles[1_900], handles[2_400]):
            with pytest.raises(rota.JobFailed):
                wrong.result(60)
        with pytest.raises(rota.JobCancelled):
            cancelled.result(60)
        app.BAD.clear()
        assert len(client.failed()) == 2
        assert client.retry_failed(handles[1_900].id) == 1 and handles[1_900].result(60) == 1_900
        request = urllib.request.Request(
            f"{cluster.url}/v1/jobs/{handles[2_400].id}", headers={"Authorization": f"Bearer {cluster.token}"}
        )
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)["id"] == handles[2_400].id
        assert client.retry_failed(all=True) == 1 and handles[2_400].result(60) == 2_400


def test_many_that_wait_for_one_are_a_wide_bundle_too() -> None:
    with rota.testing.MemoryCluster() as cluster:
        cluster.client.pause("first")
        first = app.same.using(queue="first").enqueue(0)
        handles = list(app.same.using(after=[first]).enqueue_many([(number,) for number in range(1_300)]))
        assert max(parse_job_id(handle.id)[1] for handle in handles) > 60
        assert handles[-1].status().place == "awaiting"
        cluster.client.resume("first")
        assert [handle.result(60) for handle in handles] == list(range(1_300))
