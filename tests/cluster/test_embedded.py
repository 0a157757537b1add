"""The embedded etcd against the real thing."""

from __future__ import annotations

from pathlib import Path

import pytest

from rota.client.errors import ConfigError
from rota.cluster.embedded import EmbeddedConfig, EmbeddedEtcd, find_etcd


def test_it_runs(etcd: EmbeddedEtcd) -> None:
    assert etcd.running
    assert etcd.probe()
    assert etcd.version.startswith("3.")


async def test_it_starts_and_stops_in_a_loop(tmp_path: Path, etcd_binary: Path | None) -> None:
    async with EmbeddedEtcd(EmbeddedConfig(tmp_path, binary=etcd_binary)) as server:
        assert server.running
    assert not server.running
    await server.stop()


def test_a_wrong_binary_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no executable"):
        find_etcd(tmp_path / "etcd")
