"""The master is killed, and whoever looks is told, with one takeover time: history, metrics, dashboard and log."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from rota.cluster.telemetry.words import seconds

from .rig import Rig, until
from .test_takeover import all_end, enqueue_naps, holds_work


async def test_a_killed_master_is_seen_everywhere_with_one_takeover_time(
    etcd: Any, cluster_name: str, tmp_path: Path
) -> None:
    async with Rig(etcd.endpoint, cluster_name, tmp_path, ttl_s=8, log_format="json", dev=False) as rig:
        handles = await enqueue_naps(rig, tmp_path / "journal", 200)
        victim = await rig.master()
        await holds_work(rig, victim)
        rig.kill_node(victim)

        async def succeeded() -> str:
            master = await rig.master()
            return master if master != victim else ""

        master = await until(succeeded, "another node is master")
        url = next(it for it in await rig.urls() if it)
        async with aiohttp.ClientSession(url, headers=rig.headers) as web:

            async def look(path: str) -> Any:
                async with web.get(path, headers={"Accept": "text/html"}) as answer:
                    assert answer.status == 200
                    return await (answer.json() if path.startswith("/v1/") else answer.text())

            async def told() -> Any:
                seen = await look("/v1/overview")
                gone = [it for it in seen["history"] if it["event"] == "node_gone" and it["fields"]["node"] == victim]
                taken = seen["last_takeover"]
                return seen if gone and taken is not None and taken["fields"]["node"] == victim else None

            seen = await until(told, "the takeover is in the history")
            took_s = seen["last_takeover"]["fields"]["duration_s"]
            assert seen["master"] == master == seen["last_takeover"]["node"] and seen["master_since"] is not None
            page = await look("/")
        assert f"took over what {victim} held" in page and f"in {took_s:.3g} s" in page and seconds(took_s) in page
        assert took_s in [await last_takeover(rig, it) for it in await rig.urls()]
        logged = [line for line in lines(rig, rig.name_of(master)) if line.get("event") == "took_over"]
        assert [line["fields"]["duration_s"] for line in logged] == [took_s] and logged[0]["node"] == master
        await all_end(handles)


async def last_takeover(rig: Rig, url: str) -> float | None:
    async with aiohttp.ClientSession(headers=rig.headers) as web, web.get(f"{url}/metrics") as answer:
        text = await answer.text()
    found = [
        sample.value for family in text_string_to_metric_families(text) for sample in family.samples
        if sample.name == "rota_last_takeover_seconds"
    ]
    return found[0] if found else None


def lines(rig: Rig, name: str) -> list[dict[str, Any]]:
    """Each line of a node's log is JSON, whichever of its processes wrote it."""
    text = rig.log(name)
    return [json.loads(line) for line in re.split(r"\n", text) if line]
