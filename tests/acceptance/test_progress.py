"""Progress on a real cluster: who watches sees the next attempt, and a node that is killed leaves nothing behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from .apps import work
from .rig import Rig, until


async def test_a_node_dies_while_its_job_is_watched(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=3) as rig:
        handle = await rig.client.enqueue(work.steps.using(keep_log=10), str(go), 40)
        seen: list[tuple[str, str, float]] = []
        killed = ""
        async with asyncio.timeout(60):
            async for event in handle.events():
                if event.kind == "state":
                    seen.append((event.place, event.node, 0.0))
                elif event.progress is not None:
                    seen.append(("progress", seen[-1][1], event.progress.done))
                    if not killed:
                        killed = (await handle.astatus()).node
                        assert len(await rig.read(rig.keys.progress)) == 1
                        rig.kill_node(killed)
                    elif seen[-1][1] not in ("", killed):
                        go.touch()
        assert seen[-1][0] == "finished" and await handle == 40
        nodes = {node for what, node, _ in seen if what == "progress"}
        assert len(nodes) >= 2, seen            # both attempts said how far they were

        async def gone() -> bool:
            return not await rig.read(rig.keys.progress)

        await until(gone, "nothing is left of what was said")
        assert [line.text for line in (await handle.alog()).lines][-1] == "step 40"
