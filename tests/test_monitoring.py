"""What lies in deploy/monitoring: rules and dashboard are read by their real parser where it is there (promtool), and
name metrics that nodes have."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rota.client.wire.views import QueueView
from rota.cluster.telemetry import exposition
from rota.cluster.telemetry.depths import Depth
from rota.cluster.telemetry.figures import Figures
from rota.cluster.telemetry.metered import StoreFigures
from rota.cluster.telemetry.tally import Tally

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deploy" / "monitoring"
PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")
METRIC = re.compile(r"\b(?:rota|process)_[a-z_]+\b")

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool (Debian: the package prometheus)")


def promtool(*arguments: str, cwd: Path = FOLDER) -> None:
    assert PROMTOOL is not None
    ran = subprocess.run([PROMTOOL, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_promtool
def test_rules_are_rules_and_fire_when_they_should() -> None:
    promtool("check", "rules", "alerts.yml")
    promtool("test", "rules", "alerts.test.yml")


@needs_promtool
def test_the_scrape_is_one(tmp_path: Path) -> None:
    for name in ("prometheus.yml", "alerts.yml"):
        shutil.copy(FOLDER / name, tmp_path)
    (tmp_path / "rota.token").write_text("secret")
    promtool("check", "config", "prometheus.yml", cwd=tmp_path)


@needs_promtool
def test_the_queries_of_the_dashboard_parse(tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate(queries())
    ]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "g", "rules": rules}]}))      # JSON is YAML
    promtool("check", "rules", "rules.yml", cwd=tmp_path)


def test_the_dashboard_is_whole() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24 and place["h"] > 0
        assert panel["type"] == "row" or (panel["targets"] and panel["description"])


def test_what_they_name_is_there() -> None:
    """A metric that no node has makes an alert that never fires."""
    tally, store = Tally(), StoreFigures()
    tally.last_takeover_s = 0.1
    store.status = type("Status", (), {
        "bytes_total": 1, "bytes_in_use": 1, "quota_bytes": 1, "no_space": False, "revision": 1,
    })()
    figures = Figures(
        node="n", is_master=True, why_not_ready=None, running=0, capacity={"sync": 1}, taken=0, lease_margin_s=1.0,
        lease_ttl_s=1.0, commit_backlog=0,
    )
    snapshot = exposition.Snapshot(
        cluster="c", version="0", figures=figures, tally=tally, store=store, members=1, enqueued=0,
        depth=Depth(0.0, [QueueView("q")], False, False),
    )
    page = exposition.exposition(snapshot).decode()
    families = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")}
    known = families | {f"{name}_{end}" for name in families for end in ("bucket", "sum", "count")}
    named = set(METRIC.findall((FOLDER / "alerts.yml").read_text())) | set(METRIC.findall(" ".join(queries())))
    assert named and not named - known


def test_the_runbook_has_an_entry_for_each_alert() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    for name in re.findall(r"alert: (\w+)", (FOLDER / "alerts.yml").read_text()):
        assert f"### {name}\n" in runbook, name


def dashboard() -> Any:
    return json.loads((FOLDER / "grafana.json").read_text())


def queries() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())]
