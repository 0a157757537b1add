"""`rota dev` while an app is written: what it tells, and that it starts again when the app changes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
import pytest

from rota.client.ids import job_id
from rota.client.model import TaskInfo
from rota.cluster.boot.config import EtcdConfig, NodeConfig
from rota.cluster.boot.console import Console
from rota.cluster.cli.start import reload
from rota.cluster.cli.start.serve import _several
from rota.cluster.events.hub import Events
from rota.cluster.events.records import JobEnded
from rota.cluster.node.node import Node


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.py").write_text("import os\nfrom helper import y\n")
    (tmp_path / "script.py").write_text("import shop\n")
    (tmp_path / "broken.py").write_text("import (\n")
    (tmp_path / "helper.py").write_text("def y() -> None:\n    import mill.parts\n")
    package = tmp_path / "mill" / "parts"
    package.mkdir(parents=True)
    (tmp_path / "mill" / "__init__.py").touch()
    (package / "wheel.py").write_text("z = 1\n")
    return tmp_path


@pytest.mark.parametrize(("apps", "changed", "seen"), [
    (["shop"], "shop.py", True),
    (["shop"], "helper.py", True),
    (["shop"], "mill/parts/wheel.py", True),            # imported by what it imports
    (["shop"], "script.py", False),                     # its user, not a part of it
    (["broken"], "broken.py", True),
    (["broken"], "shop.py", False),
    (["mill.tasks"], "mill/parts/wheel.py", True),
    (["mill"], "shop.py", False),
    (["shop", "mill"], "mill/parts/wheel.py", True),
    (["nowhere"], "nowhere.py", True),                  # it may be written there yet
    (["nowhere"], "shop.py", False),
])
def test_what_is_watched(app: Path, apps: list[str], changed: str, seen: bool) -> None:
    watched = reload.Watched(apps)
    assert watched.changed() == []
    (app / changed).write_text("changed = 1\n")
    assert [path.name for path in watched.changed()] == ([Path(changed).name] if seen else [])
    assert watched.changed() == []


def test_files_that_come_and_go(app: Path) -> None:
    (app / "shop.py").write_text("import new\n")
    watched = reload.Watched(["shop"])
    (app / "new.py").touch()
    assert [path.name for path in watched.changed()] == ["new.py"]
    (app / "new.py").unlink()
    assert [path.name for path in watched.changed()] == ["new.py"]


@pytest.fixture
def one_after_another(app: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], reload.Dev]:
    """A `Dev` whose node is shop.py itself, which writes that it has started."""
    monkeypatch.setattr(reload, "guard_command", lambda config: [sys.executable, str(app / "shop.py")])
    monkeypatch.setattr(reload, "guard_environment", lambda config: {})
    monkeypatch.setattr(reload, "LOOK_S", 0.05)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return lambda: reload.Dev([cast(NodeConfig, None)], reload.Watched(["shop"]))


NODE = """
from pathlib import Path
with Path("starts").open("a") as starts:
    starts.write("{name} ")
{does}
"""
RUNS = "import time; time.sleep(60)"


def write_node(app: Path, name: str, does: str) -> None:
    (app / "shop.py").write_text(NODE.format(name=name, does=does))


def when(app: Path, starts: str, do: Callable[[], None]) -> threading.Thread:
    """Does it once the nodes have started so often."""
    def wait() -> None:
        deadline = time.monotonic() + 30
        while not (app / "starts").exists() or (app / "starts").read_text() != starts:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        do()
    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_change_starts_the_node_again(
    app: Path, one_after_another: Callable[[], reload.Dev], capsys: pytest.CaptureFixture[str]
) -> None:
    write_node(app, "first", RUNS)
    dev = one_after_another()
    changer = when(app, "first ", lambda: write_node(app, "second", "raise SystemExit(0)"))
    assert dev.run() == 0
    changer.join()
    assert (app / "starts").read_text() == "first second "
    assert "shop.py changed" in capsys.readouterr().err


def test_a_broken_app_is_waited_for(
    app: Path, one_after_another: Callable[[], reload.Dev], capsys: pytest.CaptureFixture[str]
) -> None:
    write_node(app, "broken", "raise SystemExit(2)")
    dev = one_after_another()
    changer = when(app, "broken ", lambda: (time.sleep(0.3), write_node(app, "whole", "raise SystemExit(0)"))[1])
    assert dev.run() == 0
    changer.join()
    assert (app / "starts").read_text() == "broken whole "
    assert "waiting for a change" in capsys.readouterr().err


def test_a_person_ends_it(app: Path, one_after_another: Callable[[], reload.Dev]) -> None:
    write_node(app, "first", RUNS)
    dev = one_after_another()
    stopper = when(app, "first ", dev._stop)
    assert dev.run() == 0
    stopper.join()


def test_several_nodes_start_again_together_and_outlive_one_another(
    app: Path, monkeypatch: pytest.MonkeyPatch, one_after_another: Callable[[], reload.Dev],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first one that starts ends; the others go on, until a file changes."""
    write_node(app, "x", "import os\ntry: os.mkdir('first')\nexcept FileExistsError: " + RUNS)
    dev = reload.Dev([cast(NodeConfig, None)] * 3, reload.Watched(["shop"]))
    changer = when(app, "x x x ", lambda: (time.sleep(0.5), write_node(app, "y", "raise SystemExit(0)"))[1])
    assert dev.run() == 0
    changer.join()
    assert (app / "starts").read_text() == "x x x y y y "
    said = capsys.readouterr().err
    assert "1 of 3 nodes ended, the others go on" in said and "shop.py changed: the nodes start again" in said


def test_several_nodes_have_names_and_ports_of_their_own() -> None:
    config = NodeConfig(etcd=EtcdConfig(endpoints=("127.0.0.1:1",)), port=4100, insecure_no_key=True)
    assert [(one.name, one.port) for one in _several(config, 2)] == [("node-1", 4100), ("node-2", 4101)]
    anywhere = msgspec.structs.replace(config, port=0, name="n")
    assert [(one.name, one.port) for one in _several(anywhere, 2)] == [("n-1", 0), ("n-2", 0)]
    assert _several(config, 1) == [config]


class _Runners:
    def __init__(self, tasks: dict[str, TaskInfo]) -> None:
        self.tasks = tasks


class _Node:
    """What a console looks at."""

    def __init__(self, tasks: dict[str, TaskInfo]) -> None:
        self.events = Events()
        self.runners = _Runners(tasks)
        self.service = self
        self.asked = 0

    def why_not_ready(self) -> str | None:
        self.asked += 1
        return "no runner yet" if self.asked < 3 else None


async def test_the_tasks_when_it_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    node = _Node({"shop:thumb": TaskInfo("shop:thumb", "sync", "slow")})
    await Console(cast(Node, node), ("shop",)).announce("http://here:1")
    assert node.asked == 3
    assert capsys.readouterr().err.splitlines() == [
        f"rota: ready at http://here:1, process {os.getpid()}", "1 task:", "  shop:thumb  (plain function, queue slow)",
    ]


@pytest.mark.parametrize(("apps", "said"), [
    (("shop",), "no tasks in shop: is there a function with @rota.task?"),
    ((), "no --app is given"),
])
async def test_no_tasks(apps: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    await Console(cast(Node, _Node({})), apps).announce("http://here:1")
    assert said in capsys.readouterr().err


async def test_a_line_for_each_job(capsys: pytest.CaptureFixture[str]) -> None:
    node = _Node({})
    Console(cast(Node, node), ())
    node.events.emit(JobEnded("k3f9q2m7xa5t-0000001f", 0, "shop:thumb", "q", 1, "failed", "ValueError: no luck", 0.01))
    node.events.emit(JobEnded("k3f9q2m7xa5t-0000001f", 1, "shop:thumb", "q", 1, "ok", ""))
    failed, good = capsys.readouterr().err.splitlines()
    assert failed.split()[1] == "FAILED" and failed.split()[3] == "ms"
    assert failed.endswith("ValueError: no luck")
    assert good.split()[1:] == ["ok", "shop:thumb", job_id("k3f9q2m7xa5t-0000001f", 1)]
