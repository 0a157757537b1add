"""A deploy that turns `def` into `async def`, and one that turns it back: whatever was stored before runs, in the mode
that the node's code has by then (docs/decisions/0016)."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

import rota
from rota.client.api.clients import AsyncClient

from .rig import Rig, until

SHOP = """
import asyncio
import time
from datetime import timedelta
import rota

line = rota.Queue("line", serial=True)

def mode():
    try:
        return "async def" if asyncio.current_task() else "def"
    except RuntimeError:
        return "def"

@rota.task
DEF work():
    return mode()

@rota.task
DEF slow():
    time.sleep(0.05)
    return mode()

@rota.task
DEF retried():
    if rota.current_job().attempt == 1:
        raise rota.Retry(after=timedelta(seconds=4))
    return mode()

@rota.task(queue=line)
DEF head():
    if rota.current_job().attempt == 1:
        raise rota.Retry(after=timedelta(seconds=4))
    return mode()

@rota.task(queue=line)
DEF behind():
    return mode()
"""


async def stored(rig: Rig) -> list[str]:
    """Ids of jobs that are in the store, each in a place of its own, when the code changes."""
    client = rig.client
    await client.pause("held")
    handles = [
        await client.enqueue(rota.NamedTask("shop:work", queue="held")),
        await client.enqueue(rota.NamedTask("shop:work").using(run_after=4)),
        await client.enqueue("shop:retried"),
        await client.enqueue(rota.NamedTask("shop:head", queue="line")),
        *[await client.enqueue(rota.NamedTask("shop:behind", queue="line")) for _ in range(2)],
    ]
    places = ["waiting", "scheduled", "retrying", "retrying", "waiting", "waiting"]

    async def there() -> bool:
        return [(await handle.astatus()).place for handle in handles] == places

    await until(there, f"they are {places}")
    return [handle.id for handle in handles]


async def test_stored_jobs_run_as_the_code_says_by_then(
    etcd: Any, cluster_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def use(keyword: str) -> None:
        """For nodes that start from now on."""
        folder = tmp_path / keyword.split()[0]
        folder.mkdir(exist_ok=True)
        (folder / "shop.py").write_text(SHOP.replace("DEF", keyword))
        monkeypatch.setenv("PYTHONPATH", str(folder))

    use("def")
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=1, app="shop", sync=4) as rig:
        (here,) = rig.guards
        for keyword in ("async def", "def"):
            ids = await stored(rig)
            rig.guards[here].send_signal(signal.SIGTERM)
            await until(lambda guard=rig.guards[here]: guard.poll() is not None, "the node before has left")
            use(keyword)
            here = await begin(rig)
            await rig.client.resume("held")
            assert [await rig.client.handle(id_).aresult(30) for id_ in ids] == [keyword] * len(ids)
        use("async def")
        await begin(rig)
        await both_take_part(rig)
        await rig.drained()
        assert not await rig.read(rig.keys.failed)


async def begin(rig: Rig) -> str:
    """One more node, which whoever asks from now on finds."""
    node = rig.start()
    await rig.joined([node])
    await rig.client.aclose()
    rig.client = AsyncClient(await rig.urls(), **rig.credentials())
    return node


async def both_take_part(rig: Rig) -> None:
    """While nodes of both kinds are there, each runs what it is given in its own way."""
    modes = set[str]()

    async def seen() -> bool:
        handles = await rig.client.enqueue_many("shop:slow", [()] * 60)
        modes.update([await handle.aresult(30) for handle in handles])
        return modes == {"def", "async def"}

    await until(seen, "both have run some")
