"""deploy/README.md, followed line by line. What needs Docker is compared with compose.yaml; what does not is run,
beside a node that is started as the containers start theirs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rota.cluster.boot.embedded import free_port

from ..test_readme import ROOT, shell_lines
from .processes import ROTA, STOP_TIMEOUT_S, environment, wait_ready
from .test_full_store import etcdctl_binary

PAGE = ROOT / "deploy" / "README.md"
COMPOSE = (ROOT / "compose.yaml").read_text()
SERVICES = set(re.findall(r"^  ([a-z][a-z0-9-]*):$", COMPOSE.partition("\nservices:")[2], re.MULTILINE))
VARIABLE = re.compile(r"^([A-Z_]+)=\S*$")
TAKES_SERVICES = {"kill", "stop", "exec"}
PATIENCE_S = 120.0


def test_what_the_page_does_with_compose_is_there() -> None:
    for line in shell_lines(PAGE):
        words = line.split()
        while VARIABLE.match(words[0]):
            assert f"${{{words.pop(0).partition('=')[0]}" in COMPOSE, line
        if words[:2] != ["docker", "compose"]:
            continue
        command, *rest = words[2:]
        assert command in {"up", "down", *TAKES_SERVICES}, line
        if "--scale" in rest:
            assert rest[rest.index("--scale") + 1].partition("=")[0] in SERVICES, line
        if command in TAKES_SERVICES:
            assert SERVICES & set(rest), line


def test_the_settings_on_the_page_are_those_of_the_compose_file() -> None:
    table = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    said = {name for line in table for name in re.findall(r"`([A-Z_]+)`", line.split("|")[1])}
    assert said and all(f"${{{name}" in COMPOSE for name in said)
    for line in table:
        for default in re.findall(r"`([^`]+)`", line.split("|")[2]):
            assert default.split("`")[0] in COMPOSE or default == ".env", line


def test_the_page_can_be_followed(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    reader = Reader(etcd.endpoint, cluster_name, tmp_path)
    lines = [line for line in shell_lines(PAGE) if not line.startswith("make ")]
    with contextlib.ExitStack() as stack:
        for line in lines:
            reader.type(line, stack)
        assert reader.done == {"init", "gid", "exports", "enqueue", "nodes", "watch", "elect", "get"}


class Reader:
    def __init__(self, endpoint: str, cluster: str, folder: Path) -> None:
        self.endpoint, self.cluster, self.folder = endpoint, cluster, folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self.env = environment(PATH=f"{ROTA.parent}:{os.environ['PATH']}", ETCDCTL_API="3")
        self.done: set[str] = set()
        (folder / "deploy").mkdir()

    def type(self, line: str, stack: contextlib.ExitStack) -> None:
        if line.startswith("rota init"):
            self.shell(line)
            self.done.add("init")
        elif line.startswith("echo"):
            self.shell(line)
            group = (self.folder / "deploy/secrets/rota.key").stat().st_gid
            assert (self.folder / ".env").read_text() == f"ROTA_SECRETS_GID={group}\n"
            self.done.add("gid")
        elif line.startswith("docker compose up --build"):
            stack.enter_context(self.node())
        elif line.startswith("export"):
            self.env |= dict(word.split("=") for word in line.split()[1:])
            self.env["ROTA_URL"] = self.url
            self.done.add("exports")
        elif line.startswith("rota enqueue"):
            assert re.match(r"hello Ann, from \S+\n", self.shell(line))
            self.done.add("enqueue")
        elif line.startswith("rota nodes"):
            assert re.search(r"^page-\w{6} +master", self.shell(line), re.MULTILINE)
            self.done.add("nodes")
        elif (found := re.match(r"docker compose exec etcd-1 etcdctl (.*)", line)) is not None:
            self.etcdctl(found[1].replace("/default/", f"/{self.cluster}/").split())
        else:
            assert "docker compose" in line, f"no test knows {line!r}"

    def shell(self, line: str) -> str:
        done = subprocess.run(
            line, shell=True, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def etcdctl(self, arguments: list[str]) -> None:
        self.done.add(arguments[0])
        command = [etcdctl_binary(), "--endpoints", self.endpoint, *arguments]
        if arguments[0] == "get":
            page = subprocess.run(command, env=self.env, capture_output=True, text=True, check=True).stdout
            assert f"/rota/{self.cluster}/nodes/page-" in page and f"/rota/{self.cluster}/tasks/tasks:hello" in page
            return
        if arguments[0] == "watch":
            command += ["--rev", self.joined()]     # (nothing comes or goes while the test looks)
        with subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            until(lambda: "page-" in process.stdout.readline())     # type: ignore[union-attr]
            process.kill()

    def joined(self) -> str:
        """The revision at which the node came: what lies before may have been compacted by others' tests."""
        keys = ["get", "--prefix", f"/rota/{self.cluster}/nodes/page-", "-w", "fields"]
        command = [etcdctl_binary(), "--endpoints", self.endpoint, *keys]
        fields = subprocess.run(command, env=self.env, capture_output=True, text=True, check=True)
        found = re.search(r'"CreateRevision" : (\d+)', fields.stdout)
        assert found, fields.stdout
        return found[1]

    @contextlib.contextmanager
    def node(self) -> Iterator[None]:
        log = self.folder / "node.log"
        secrets = self.folder / "deploy/secrets"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [ROTA, "node", "--app", "tasks", "--etcd", self.endpoint.partition("://")[2] or self.endpoint,
                 "--etcd-allow-broken", "--cluster", self.cluster, "--name", "page", "--sync", "1",
                 "--http", self.url.partition("://")[2], "--key-file", secrets / "rota.key",
                 "--token-file", secrets / "rota.token"],
                cwd=ROOT / "deploy" / "app", env=self.env, stdout=output, stderr=output,
            )  # fmt: skip
        try:
            wait_ready(self.url, process, log)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_TIMEOUT_S)


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end
