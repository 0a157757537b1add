"""No row of an outbox is lost or doubled while relays and nodes are killed: real etcd, real Postgres, real processes.

Relays die between a row's move and its deletion. By hand with more kills, and on SQLite as well:
`ROTA_OUTBOX_KILLS=20 pytest tests/acceptance/test_outbox.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from rota.cluster.ledger.ledger import Delete, Txn

from ..outbox import databases
from .apps.outbox import outbox, tell
from .rig import ROOT, Rig, until

KILLS = int(os.environ.get("ROTA_OUTBOX_KILLS", "1"))
ROWS_PER_S = 50
WAIT_OUT = 5
"""Every so many times the next relay waits out the lease of the dead one, as it does in earnest: ten seconds."""
STANDS_STILL_S = 240.0

pytestmark = pytest.mark.timeout(240 + 60 * KILLS)


@pytest.fixture(params=["postgres", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    with contextlib.ExitStack() as stack:
        missing = databases.why_not()
        if request.param == "postgres":
            if missing:
                pytest.skip(missing)
            url = stack.enter_context(databases.postgres())
        else:
            if not missing and "ROTA_OUTBOX_KILLS" not in os.environ:
                pytest.skip("Postgres does it: ROTA_OUTBOX_KILLS=2 runs it on SQLite as well")
            url = f"sqlite:///{tmp_path}/shop.db"
        made = sa.create_engine(url)
        outbox.metadata.create_all(made)
        yield made
        made.dispose()


async def until_none(left: Callable[[], int], what: str) -> None:
    """However long it takes, as long as it goes on."""
    least, limit = left(), time.monotonic() + STANDS_STILL_S
    while (now := left()) > 0:
        if now < least:
            least, limit = now, time.monotonic() + STANDS_STILL_S
        assert time.monotonic() < limit, f"{now} {what} for {STANDS_STILL_S:g} s"
        await asyncio.sleep(0.2)


async def test_no_row_is_lost_or_doubled(
    etcd: Any, cluster_name: str, tmp_path: Path, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, over = tmp_path / "journal", asyncio.Event()
    kept: list[int] = []
    killed = {"relays": 0, "nodes": 0}

    def write(number: int) -> None:
        """A transaction with a few rows; every fifth is rolled back."""
        with engine.connect() as connection:
            numbers = [10 * number + one for one in range(3)]
            for one in numbers:
                outbox.enqueue(connection, tell, str(journal), one)
            if number % 5 == 4:
                connection.rollback()
            else:
                connection.commit()
                kept.extend(numbers)

    async def application() -> None:
        number = 0
        while not over.is_set():
            await asyncio.to_thread(write, number)
            number += 1
            await asyncio.sleep(3 / ROWS_PER_S)

    async def relay(rig: Rig, urls: str) -> None:
        """Started again whenever it has died; every other time a node dies with it."""
        while True:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.acceptance.apps.outbox", engine.url.render_as_string(False), urls,
                "0" if over.is_set() else "0.5", cwd=ROOT, stderr=subprocess.DEVNULL,
            )
            try:
                await process.wait()
                killed["relays"] += 1
                if killed["relays"] % WAIT_OUT:
                    await rig.ledger.commit(Txn((), (Delete(rig.keys.outbox("mortal")),)))      # its lease is over
                if killed["relays"] % 2:
                    with contextlib.suppress(AssertionError, IndexError, ProcessLookupError):
                        rig.kill_node(random.choice(await rig.members()))
                        killed["nodes"] += 1
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    def left() -> int:
        with engine.connect() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(outbox.table)) or 0

    app = "tests.acceptance.apps.outbox"
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=2, app=app, restart=True) as rig:
        monkeypatch.setenv("ROTA_KEY_FILE", str(rig.credentials()["key"]))
        monkeypatch.setenv("ROTA_TOKEN", rig.credentials()["token"])
        urls = ",".join(await rig.urls())
        jobs = [asyncio.create_task(one) for one in (relay(rig, urls), relay(rig, urls), application())]
        await until_none(lambda: KILLS - killed["relays"], "relays are still to die over their rows")
        over.set()
        await jobs[2]
        await until_none(left, "rows are left")
        for one in jobs[:2]:
            one.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        await rig.drained(STANDS_STILL_S)
    runs = [line.split() for line in journal.read_text().splitlines()]
    jobs_run = {(int(number), job) for number, job in runs}     # (what a killed node ran may run again: the same job)
    print(
        f"{len(kept)} rows, {len(jobs_run)} jobs, {len(runs)} runs; "
        f"{killed['relays']} relays and {killed['nodes']} nodes were killed"
    )
    assert sorted(number for number, _ in jobs_run) == sorted(kept)
    assert killed["nodes"] or len(runs) == len(kept)


@pytest.mark.skipif("ROTA_OUTBOX_KILLS" not in os.environ, reason="half a minute: ROTA_OUTBOX_KILLS=2 runs it")
async def test_a_node_relays_and_another_takes_over(
    etcd: Any, cluster_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`rota node --outbox`: of two nodes one moves rows; it is killed, and the other one goes on."""
    engine, journal = sa.create_engine(f"sqlite:///{tmp_path}/shop.db"), tmp_path / "journal"
    outbox.metadata.create_all(engine)

    def write(numbers: range) -> None:
        with engine.begin() as connection:
            for number in numbers:
                outbox.enqueue(connection, tell, str(journal), number)

    def ran() -> set[int]:
        return {int(line.split()[0]) for line in journal.read_text().splitlines()} if journal.exists() else set()

    app, database = "tests.acceptance.apps.outbox", engine.url.render_as_string(False)
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=2, app=app, outbox=database) as rig:
        monkeypatch.setenv("ROTA_KEY_FILE", str(rig.credentials()["key"]))
        write(range(20))
        await until(lambda: ran() == set(range(20)), "the rows are moved by a node", 60)
        (view,) = await rig.client.outboxes()
        pid = int(view.relay.split("-")[-2])
        rig.kill_node(next(node for node in await rig.members() if rig.node_pid(node) == pid))
        write(range(20, 40))
        await until(lambda: ran() == set(range(40)), "the other node has taken over", 60)
    engine.dispose()
