"""`rota job` follows a job and shows what is kept of its log; `rota jobs` by time; headers from a shell."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

import rota
from rota.cluster.cli.app import app
from rota.testing import MemoryCluster


@rota.task(keep_log=5)
def told(count: int, pause_s: float = 0.0) -> dict[str, str]:
    for number in range(count):
        rota.progress(number + 1, count, "a note")
        logging.getLogger("told").warning("line %d", number)
        if pause_s:
            time.sleep(pause_s)
    job = rota.current_job()
    assert job is not None
    return dict(job.headers)


@pytest.fixture(scope="module")
def cluster() -> Iterator[MemoryCluster]:
    with MemoryCluster() as made:
        yield made


def run(cluster: MemoryCluster, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--url", cluster.url])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_job_is_followed_to_its_end(cluster: MemoryCluster) -> None:
    handle = told.enqueue(7, 0.1)           # so that its lines come in several parts
    events = [json.loads(line) for line in run(cluster, "job", handle.id, "--follow", "--json").splitlines()]
    assert events[-1]["kind"] == "state" and events[-1]["place"] == "finished"
    assert "it ended well" in run(cluster, "job", handle.id, "-f")
    log = run(cluster, "job", handle.id, "--log")
    assert [f"line {number}" in log for number in range(7)] == [False] * 2 + [True] * 5
    kept = json.loads(run(cluster, "job", handle.id, "--log", "--json"))
    assert (len(kept["lines"]), kept["dropped"]) == (5, 2) and "2 lines before these" in log


def test_headers_are_said_in_a_shell(cluster: MemoryCluster) -> None:
    said = ("enqueue", told.name, "0", "--header", "tenant=acme", "--header", "trace=a=b", "--wait", "--json")
    assert json.loads(run(cluster, *said))["result"] == {"tenant": "acme", "trace": "a=b"}
    assert CliRunner().invoke(app, ["enqueue", told.name, "0", "--header", "x", "--url", cluster.url]).exit_code == 2


def test_jobs_of_a_time_and_a_label(cluster: MemoryCluster) -> None:
    told.using(run_after=3600, requires={"gpu"}).enqueue(1)
    listed = ("jobs", "--place", "scheduled", "--json")
    assert len(json.loads(run(cluster, *listed, "--since", "1h"))["jobs"]) == 1
    assert json.loads(run(cluster, *listed, "--until", "2026-01-01"))["jobs"] == []
    assert len(json.loads(run(cluster, *listed, "--label", "gpu"))["jobs"]) == 1
    assert json.loads(run(cluster, *listed, "--label", "other"))["jobs"] == []
    assert CliRunner().invoke(app, ["jobs", "--since", "soon", "--url", cluster.url]).exit_code == 2
