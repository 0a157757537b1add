"""The embedded etcd against the real thing."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rota.client.errors import ConfigError
from rota.cluster.boot.embedded import EmbeddedConfig, EmbeddedEtcd, find_etcd
from rota.cluster.ledger.channels import EtcdConfig as LedgerConfig
from rota.cluster.ledger.etcd import EtcdLedger
from rota.cluster.ledger.ledger import Put, Txn
from rota.worker.guard.revoke import Etcd as Guarded


def test_it_runs(etcd: EmbeddedEtcd) -> None:
    assert etcd.running
    assert etcd.probe()
    assert etcd.version.startswith("3.")


async def test_it_starts_and_stops_in_a_loop(tmp_path: Path, etcd_binary: Path | None) -> None:
    async with EmbeddedEtcd(EmbeddedConfig(tmp_path, binary=etcd_binary)) as server:
        assert server.running
    assert not server.running
    await server.stop()


async def test_no_web_page_reaches_it(tmp_path: Path, etcd_binary: Path | None) -> None:
    """Nor any other user: it listens on no port at all, on sockets in a folder of its owner."""
    async with EmbeddedEtcd(EmbeddedConfig(tmp_path, binary=etcd_binary)) as server:
        sockets = psutil.Process(server.pid).net_connections("inet")
        assert [one for one in sockets if one.status == psutil.CONN_LISTEN] == []
        folder = Path(server.endpoint.removeprefix("unix://")).parent
        assert folder.stat().st_mode & 0o077 == 0
        async with EtcdLedger(LedgerConfig((server.endpoint,))) as ledger:
            await ledger.commit(Txn((), (Put(b"/a", b"1"),)))
            server.kill()
            await server.start()
            assert (await ledger.read(b"/a")).records[0].value == b"1"
            await ledger.grant(60, 0x1234)
            said = await asyncio.to_thread(Guarded({"endpoints": [server.endpoint]}).revoke, "1234")
            assert "is revoked" in said
    assert not folder.exists()


def test_it_dies_with_its_parent(tmp_path: Path, etcd_binary: Path | None) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from rota.cluster.boot.embedded import EmbeddedConfig, EmbeddedEtcd\n"
        "binary = Path(sys.argv[2]) if len(sys.argv) > 2 else None\n"
        "with EmbeddedEtcd(EmbeddedConfig(Path(sys.argv[1]), binary=binary)) as server:\n"
        "    print(server.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path), *([str(etcd_binary)] if etcd_binary else [])]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while is_alive(child):
        assert time.monotonic() < deadline, f"etcd {child} outlived its parent"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """A zombie that nobody has reaped yet does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_data_survives_a_restart_on_other_ports(tmp_path: Path, etcd_binary: Path | None) -> None:
    for _ in range(2):
        with EmbeddedEtcd(EmbeddedConfig(tmp_path, binary=etcd_binary)) as server:
            assert server.probe()


def test_what_keeps_it_from_starting_is_told(tmp_path: Path, etcd_binary: Path | None) -> None:
    with pytest.raises(ConfigError, match="no-such-flag"):
        EmbeddedEtcd(EmbeddedConfig(tmp_path, binary=etcd_binary, extra=("--no-such-flag",))).start_sync()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = EmbeddedEtcd(EmbeddedConfig(tmp_path, binary=etcd_binary, tcp=True, client_port=port, peer_port=1))
        with pytest.raises(ConfigError):
            server.start_sync()


def test_a_wrong_binary_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no executable"):
        find_etcd(tmp_path / "etcd")
