"""`rota top`, `rota tail`, `rota dashboard`: what they show is true, escaped, and fit for a pipe."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import rota
from rota.client.wire.views import QueueView
from rota.cluster.cli.inspect import picture, watch
from rota.cluster.events import records as r
from rota.cluster.telemetry.hour import Minute
from rota.cluster.telemetry.overview import NodeOverview, Overview, Totals
from rota.cluster.telemetry.records import Happened
from rota.testing import MemoryCluster

ROTA = Path(sys.executable).parent / "rota"
EVIL = "\x1b[31m\x1b]0;t\x07\u202egnp[bold]\r\nforged"


@rota.task
def twice(number: int) -> int:
    return 2 * number


@pytest.fixture(scope="module")
def cluster() -> Iterator[MemoryCluster]:
    with MemoryCluster() as made:
        yield made


def rendered(seen: Overview, width: int = 100) -> str:
    out = io.StringIO()
    Console(file=out, width=width, markup=False, emoji=False, highlight=False).print(picture.picture(seen, 1_000.0))
    return out.getvalue()


def evil() -> Overview:
    happened = Happened(900.0, EVIL, "took_over", {"node": EVIL, "claims": 3, "duration_s": 0.034})
    node = NodeOverview(EVIL, EVIL, EVIL, True, {"sync": 2}, EVIL, EVIL, 0.0, 1, [EVIL], 1, 0.5, 2.0)
    minutes = [Minute(at, ok=at, enqueued=at) for at in range(60)]
    return Overview(
        EVIL, 1_000.0, EVIL, 940.0, happened, [node], minutes, [], Totals(0.0, 7, 1, 2, 3, 12.0, True), [happened],
        [QueueView(EVIL, 7, at_least=["waiting"])],
    )


def test_the_picture_is_whole_and_harmless() -> None:
    shown = rendered(evil())
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert "\\x1b[31m" in shown and not any(line.startswith("forged") for line in shown.splitlines())
    assert "≥ 7" in shown and "held (3)" in shown and "0.034 s" in shown and "since 60 s" in shown


def test_an_empty_cluster_is_a_picture_too() -> None:
    shown = rendered(Overview("c", 1.0, "", None, None, [], [Minute(at) for at in range(60)], [], None, []), 80)
    assert "no master" in shown and "being counted" in shown


def test_bars_show_what_is_not_nothing() -> None:
    assert picture.bars([0, 1, 1_000]) == " ▁█" and picture.bars([]) == "" and picture.bars([0, 0]) == "  "


def test_top_and_dashboard_in_a_pipe(cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert twice.enqueue(4).result(timeout=60) == 8
    watch.top(every=1.0, once=True, url=cluster.url, token_file=None, json=False)
    shown = capsys.readouterr().out
    assert "rota testing" in shown and "master memory-" in shown and "is master" in shown
    watch.top(every=1.0, once=True, url=cluster.url, token_file=None, json=True)
    assert json.loads(capsys.readouterr().out)["cluster"] == "testing"
    watch.dashboard(url=cluster.url, token_file=None)
    assert capsys.readouterr().out.strip() == f"{cluster.url}/login#{cluster.token}"


def test_tail_tells_events_and_jobs_as_they_happen(cluster: MemoryCluster) -> None:
    with tailing(cluster, "--jobs", "--json") as process:
        lines = told(cluster, process)
    (ended,) = [line for line in lines if line["event"] == "job_ended" and line["fields"]["task"] == twice.name][:1]
    assert ended["fields"]["outcome"] == "ok" and ended["fields"]["ran_s"] > 0
    (over,) = [line for line in lines if line["event"] == "bulk_ended"][:1]
    assert over["fields"] == {"operation": "op", "verb": EVIL, "jobs": 3, "note": ""}


def tailing(cluster: MemoryCluster, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [ROTA, "tail", "--url", cluster.url, *options], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"ROTA_TOKEN": cluster.token, "PYTHONUNBUFFERED": "1"},
    )


def told(cluster: MemoryCluster, process: Any) -> list[dict[str, Any]]:
    """Both are told again and again, until the command has connected and has shown them."""
    lines: list[dict[str, Any]] = []
    enough = threading.Event()

    def tell() -> None:
        while not enough.wait(0.2):
            twice.enqueue(1)
            cluster._loop.call_soon_threadsafe(cluster._node.events.emit, r.BulkEnded("op", EVIL, 3))

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        for line in process.stdout:
            lines.append(json.loads(line))
            if {"job_ended", "bulk_ended"} <= {it["event"] for it in lines}:
                return lines
        raise AssertionError("the command ended")
    finally:
        enough.set()
        teller.join(5)
        process.terminate()


def test_tail_says_that_nobody_is_there() -> None:
    ran = subprocess.run([ROTA, "tail", "--url", "http://127.0.0.1:1"], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 3 and "no node can be reached" in ran.stderr and "Traceback" not in ran.stderr
