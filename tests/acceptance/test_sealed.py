"""Encryption keys reach the runners of real nodes, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rota.client import sealing
from rota.client.local import key_line, write_secret

from .apps.outbox import tell
from .rig import Rig, until


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "rota.encryption"
    write_secret(file, key_line() + "\n")
    yield file
    sealing.use(None)


async def test_a_job_waits_for_the_node_that_can_open_it(
    etcd: Any, cluster_name: str, tmp_path: Path, keys: Path
) -> None:
    journal = tmp_path / "journal"
    sealing.use(keys)
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=1, app="tests.acceptance.apps.outbox") as rig:
        handle = await rig.client.enqueue(tell.using(max_attempts=1), str(journal), 17)

        async def waits() -> bool:
            return (await handle.astatus()).place == "scheduled"

        await until(waits, "the node without the key has given it back")
        stored = [record.value for prefix in (rig.keys.root, rig.keys.data) for record in await rig.read(prefix)]
        assert stored and not any(str(journal).encode() in value for value in stored)
        (first,) = await rig.members()
        await rig.joined([rig.start(encrypt_file=str(keys))])
        rig.kill_machine(first)
        await handle.aresult(timeout=60)
    assert journal.read_text() == "17\n"
