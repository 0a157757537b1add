"""Encryption keys reach the runners of a real node, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rota.client.settings.local import key_line, write_secret
from rota.client.wire import sealing

from .apps.outbox import tell
from .rig import Rig


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "rota.encryption"
    write_secret(file, key_line() + "\n")
    yield file
    sealing.use(None)


async def test_a_runner_opens_what_the_store_cannot(
    etcd: Any, cluster_name: str, tmp_path: Path, keys: Path
) -> None:
    journal = tmp_path / "journal"
    app = "tests.acceptance.apps.outbox"
    sealing.use(keys)
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=1, app=app, encrypt_file=str(keys)) as rig:
        later = await rig.client.enqueue(tell.using(run_after=600), str(journal), 4)
        handle = await rig.client.enqueue(tell, str(journal), 17)
        await handle.aresult(timeout=30)
        stored = [record.value for prefix in (rig.keys.root, rig.keys.data) for record in await rig.read(prefix)]
        assert stored and not any(str(journal).encode() in value for value in stored)
        assert await rig.client.arguments(later.id) == ((str(journal), 4), {})
    assert journal.read_text() == f"17 {handle.id}\n"
