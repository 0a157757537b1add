"""Every file below examples/ runs as it says."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rota.cluster.boot.embedded import EmbeddedEtcd, free_port

from .processes import Running, dev, environment
from .rig import Rig, until

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
OUR_OWN = {
    "quickstart.py", "web_app.py", "watch_membership_etcd3.py", "import_files.py", "nightly_report.py",
    "debounced_index.py", "polite_crawler.py", "orders_outbox.py", "etl.py",
    "durable_order.py",
}
TASKS = ("quickstart", "import_files", "nightly_report", "debounced_index", "polite_crawler", "orders_outbox", "etl")
APPS = [word for app in TASKS for word in ("--app", app)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("examples")
    with dev(folder, *APPS, "--sync", "1", cwd=EXAMPLES) as node:
        yield node


def test_each_example_has_a_test_and_a_line_in_the_readme() -> None:
    found = {path.name for path in EXAMPLES.glob("*.py")}
    assert found == OUR_OWN
    readme = (EXAMPLES / "README.md").read_text()
    assert all(f"[{name}]({name})" in readme for name in found)


def test_quickstart(running: Running) -> None:
    """As a script: its functions are shipped by value."""
    done = subprocess.run(
        [sys.executable, "quickstart.py"], cwd=EXAMPLES, env=environment(ROTA_URL=running.url), capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    words, waited, failed = done.stdout.splitlines()
    assert words.endswith(": 4 words")
    assert 25 <= float(waited.split()[-4]) < 60, waited
    assert failed == "failed, as it should: ZeroDivisionError: division by zero"


def run(name: str, running: Running) -> list[str]:
    done = subprocess.run(
        [sys.executable, name], cwd=EXAMPLES, env=environment(ROTA_URL=running.url), capture_output=True, text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_import_files(running: Running) -> None:
    said = run("import_files.py", running)
    assert said[-2] == "state finished", said
    assert any(line.startswith("log ") and line.endswith(" files") for line in said)
    assert re.fullmatch(r"\d{4,} functions are in the database", said[-1])


def test_debounced_index(running: Running) -> None:
    """How many are indexed depends on how fast it types; it is few, and the last is one of them."""
    (said,) = run("debounced_index.py", running)
    found = re.fullmatch(r"40 changes, (\d+) indexed: \d{3,} words, (\d+) in all", said)
    assert found is not None, said
    text = (Path(sysconfig.get_path("stdlib")) / "asyncio" / "base_events.py").read_text()
    assert int(found[1]) < 40 and int(found[2]) == len(text.split())


def test_polite_crawler(running: Running) -> None:
    (said,) = run("polite_crawler.py", running)
    found = re.fullmatch(r"(\d+) pages, [\d,]+ bytes, (\d+) requests, at most (\d+) in a second", said)
    assert found is not None, said
    files = list((Path(sysconfig.get_path("stdlib")) / "asyncio").glob("*.py"))
    assert int(found[1]) > len(files) and int(found[2]) >= int(found[1])
    assert int(found[3]) <= 20 + 10          # what is given out is counted exactly; it begins a moment later


def test_etl(running: Running) -> None:
    stored, checked = run("etl.py", running)
    assert re.fullmatch(r"flow \S+ is stored", stored)
    assert re.fullmatch(r"[\d,]{3,} files in \d+ folders are in the table", checked), checked


async def test_durable_order(
    etcd: Any, cluster_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two nodes, of which it kills one."""
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES))
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=2, app="durable_order") as rig:
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "durable_order.py"], cwd=EXAMPLES, capture_output=True, text=True,
            timeout=100, env=environment(
                ROTA_URL=",".join(await rig.urls()), ROTA_TOKEN_FILE=str(tmp_path / "rig.token"),
                ROTA_KEY_FILE=str(tmp_path / "rig.key"),
            ),
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["parcel for the payment of 4200 cents", "charged 4200 cents", "packed"]


def test_nightly_report(running: Running) -> None:
    schedule, *packages = run("nightly_report.py", running)
    assert schedule == "nightly_report:report: At 03:00 on Monday through Friday (Europe/Berlin)", schedule
    assert len(packages) == 5 and all(" lines in " in line for line in packages)


def test_web_app(running: Running) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "web_app.py", "--port", str(port)], cwd=EXAMPLES, env=environment(ROTA_URL=running.url),
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        job = fetch(f"http://127.0.0.1:{port}/count", b"every job ends somewhere")["id"]
        assert fetch(f"http://127.0.0.1:{port}/count/{job}") == {"words": 4}
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def test_orders_outbox(running: Running) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "orders_outbox.py", "--port", str(port)], cwd=EXAMPLES, env=environment(ROTA_URL=running.url),
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}/orders"
        assert fetch(url, b"tea")["order"] == 1
        with pytest.raises(urllib.error.HTTPError, match="400"):
            fetch(url, b"")
        assert fetch(url, b"coffee")["order"] == 2
        deadline = time.monotonic() + 30
        while (told := fetch(url))["confirmed"] != ["tea", "coffee"] and time.monotonic() < deadline:
            time.sleep(0.1)
        assert told == {"orders": ["tea", "coffee"], "confirmed": ["tea", "coffee"]}
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def fetch(url: str, data: bytes | None = None) -> dict[str, object]:
    """Waits until somebody listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data), timeout=30) as answer:
                page: dict[str, object] = json.load(answer)
                return page
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError) or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


@pytest.fixture(scope="session")
def etcd3_python() -> Path:
    """A Python with the etcd3 package of 2020 and the protobuf it needs; kept between runs."""
    requirements = EXAMPLES / "etcd3-requirements.txt"
    mark = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ROOT / ".cache" / f"etcd3-{mark}"
    python, done = folder / "bin" / "python", folder / "done"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-q", "--disable-pip-version-check", "-r", requirements],
                       check=True)
        done.touch()
    return python


async def test_watch_membership_with_the_plain_etcd3_package(
    etcd3_python: Path, etcd: EmbeddedEtcd, cluster_name: str, tmp_path: Path
) -> None:
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=2) as rig:
        first = await rig.master()
        watching = start_watching(etcd3_python, etcd.endpoint, cluster_name, tmp_path)
        try:
            said = await until(lambda: lines(tmp_path, 3), "the members and the master")
            members = [line.split()[1] for line in said if line.startswith("member ")]
            assert set(members) == set(await rig.members())
            assert said[-1] == f"master {first}"

            third = rig.start()
            await until(lambda: any(line.startswith(f"joined {third}-") for line in lines(tmp_path)), "a third joins")

            rig.guards[first.rpartition("-")[0]].terminate()
            await until(lambda: f"left {first}" in lines(tmp_path), "the first leaves")
            (*_, last) = [line for line in lines(tmp_path) if line.startswith("master ")]
            assert last == f"master {await rig.master()}" != f"master {first}"     # handed over before it left
        finally:
            watching.kill()
            watching.wait()


def start_watching(python: Path, endpoint: str, cluster: str, folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "said").open("wb") as output:
        return subprocess.Popen(
            [python, EXAMPLES / "watch_membership_etcd3.py", "--etcd", endpoint.partition("://")[2],
             "--cluster", cluster],
            stdout=output, stderr=output,
        )  # fmt: skip


def lines(folder: Path, at_least: int = 0) -> list[str]:
    """What it has said so far; nothing yet if that is too little."""
    said = (folder / "said").read_text().splitlines()
    return said if len(said) >= at_least else []
