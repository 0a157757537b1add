"""Schedules over HTTP, for programs without rota's client, and from a shell."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rota
from rota.testing import MemoryCluster

ROTA = Path(sys.executable).parent / "rota"
ran: list[tuple[str, int]] = []


@rota.task
def report(region: str, year: int = 2026) -> None:
    ran.append((region, year))


@pytest.fixture
def cluster() -> Iterator[MemoryCluster]:
    ran.clear()
    with MemoryCluster() as made:
        yield made


def ask(cluster: MemoryCluster, path: str, body: object = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(cluster.url + path, data, {"Authorization": f"Bearer {cluster.token}"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_life_of_a_schedule(cluster: MemoryCluster) -> None:
    said = {"task": report.name, "args": ["eu"], "kwargs": {"year": 2027}, "every_s": 3600, "overlap": "skip"}
    status, view = ask(cluster, "/v1/schedules/eu", said)
    assert (status, view["when"], view["overlap"], view["task"]) == (200, "Every hour", "skip", report.name)
    cluster.travel(hours=2, minutes=1)
    assert ran == [("eu", 2027)] * 2
    assert ask(cluster, "/v1/schedules/eu/pause", {})[1]["paused"] is True
    _, job = ask(cluster, "/v1/schedules/eu/run", {})
    cluster.client.handle(job["id"]).result(60)
    assert ask(cluster, "/v1/schedules/eu/resume", {})[1].get("paused") is None
    assert ask(cluster, "/v1/schedules/eu")[1]["fired"] == 2 and len(ran) == 3
    assert ask(cluster, "/v1/schedules/eu/delete", {}) == (200, {"deleted": "eu"})
    assert ask(cluster, "/v1/schedules/eu")[0] == 404


@pytest.mark.parametrize(("said", "status", "words"), [
    ({"args": ["eu"]}, 400, "either cron"),
    ({"args": ["eu"], "cron": "soon"}, 400, "five fields"),
    ({"args": [], "every_s": 60}, 400, "missing a required argument: 'region'"),
    ({"args": ["eu"], "kwargs": {"colour": 1}, "every_s": 60}, 400, "unexpected keyword argument 'colour'"),
    ({"args": {"a": 1}, "every_s": 60}, 400, "args is an array"),
    ({"args": ["eu"], "every_s": 60, "colour": "red"}, 400, "a schedule has no colour"),
    ({"args": ["eu"], "every_s": 60, "declared": True}, 400, "a schedule has no declared"),
    ({"args": ["eu"], "every_s": 60, "task": "nowhere:task"}, 404, "no node has ever registered"),
    ({"args": ["eu"], "every_s": "often"}, 400, "is not what POST"),
    ({"template": "bm90aGluZw==", "every_s": 60}, 400, "body"),
])
def test_what_is_refused(cluster: MemoryCluster, said: dict[str, Any], status: int, words: str) -> None:
    told = said if "template" in said else {"task": report.name} | said
    got, answer = ask(cluster, "/v1/schedules/x", told)
    assert got == status and words in answer["message"], answer
    assert ask(cluster, "/v1/schedules") == (200, [])


def test_lists_go_part_by_part(cluster: MemoryCluster) -> None:
    for number in range(5):
        cluster.client.schedules.put(f"s{number}", report, ("eu",), every=60)
    assert [view["name"] for view in ask(cluster, "/v1/schedules?limit=2")[1]] == ["s0", "s1"]
    assert [view["name"] for view in ask(cluster, "/v1/schedules?limit=3&after=s1")[1]] == ["s2", "s3", "s4"]
    assert ask(cluster, "/v1/schedules?limit=many")[0] == 400


def test_from_a_shell(cluster: MemoryCluster) -> None:
    def say(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [ROTA, "schedule", *arguments, "--url", cluster.url], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stderr

    assert "At 03:00 on Monday through Friday (Europe/Berlin)" in say(
        "put", "nightly", report.name, "eu", "--set", "year=2027", "--cron", "0 3 * * 1-5", "--tz", "Europe/Berlin"
    )
    assert "nightly" in say("list") and json.loads(say("list", "--json"))[0]["name"] == "nightly"
    assert "paused" in say("pause", "nightly") and "paused" not in say("resume", "nightly")
    cluster.client.handle(say("run", "nightly").strip()).result(60)
    assert ran == [("eu", 2027)]
    assert "missing a required argument" in say("put", "other", report.name, "--every", "60", code=4)
    assert say("delete", "nightly").strip() == "schedule nightly is deleted"
    assert "no schedule 'nightly'" in say("pause", "nightly", code=5)
