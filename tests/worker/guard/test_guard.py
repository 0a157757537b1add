"""The guard, with real processes below it: a node that does what the test says, and runners that sleep."""

from __future__ import annotations

import http.server
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rota.worker.guard.guardlink import GUARD, guard_command

from ..rig import APPS, alive, boottime, exists

PATIENCE_S = 20.0
SLEEP = ["sleep", "600"]
LEASE = 0x694D7E5A


class Node:
    """The test's end of a node's process (`apps/relay.py`)."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE_S)
        self.sock = sock
        self.pid: int = self.receive("hello")["pid"]

    def send(self, **message: Any) -> None:
        self.sock.send(json.dumps(message).encode())

    def receive(self, op: str) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.sock.recv(100_000))
        assert message["op"] == op, message
        return message

    def spawn(self, number: int, argv: list[str] = SLEEP) -> int:
        self.send(op="spawn", runner=number, argv=argv)
        pid: int = self.receive("spawned")["pid"]
        return pid

    def lease(self, after_s: float) -> None:
        self.send(op="lease", id=f"{LEASE:x}", deadline=boottime() + after_s)

    def exit(self, status: int) -> None:
        self.sock.send(b"exit %d" % status)


class Guarded:
    """A guard under test."""

    def __init__(self, folder: Path, *options: str, stderr: int | None = None) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(folder / "relay"))
        self._listener.listen()
        self._listener.settimeout(PATIENCE_S)
        self._err = folder / "stderr"
        self._nodes: list[Node] = []
        command = guard_command([sys.executable, str(APPS / "relay.py")])
        command[4:4] = options
        with self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command, env={**os.environ, "RELAY": str(folder / "relay")}, stdin=subprocess.DEVNULL,
                stderr=err if stderr is None else stderr,
            )

    def node(self) -> Node:
        """The next node's process that comes up."""
        self._nodes.append(Node(self._listener.accept()[0]))
        return self._nodes[-1]

    def said(self) -> str:
        return self._err.read_text()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._listener.close()
        for node in self._nodes:
            node.sock.close()


class Gateway(http.server.ThreadingHTTPServer):
    """Stands for etcd's JSON gateway: notes each request, and what `look` sees at that moment."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.look: Callable[[], Any] = lambda: None
        self.token = ""
        self.off = False
        self.requests: list[tuple[str, dict[str, Any], Any]] = []
        self.at = 0.0
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Gateway

    def do_POST(self) -> None:
        self.server.at = time.monotonic()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body, self.server.look()))
        if self.server.off:
            self.send_error(404, "page not found")
            return
        status = 200
        answer: dict[str, Any] = {"header": {}}
        if self.path == "/v3/auth/authenticate":
            answer = {"token": self.server.token}
        elif self.server.token and self.headers["Authorization"] != self.server.token:
            status = 401
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def children(parent: int) -> list[tuple[int, bytes]]:
    """(pid, command line) of each child."""
    task = Path(f"/proc/{parent}/task/{parent}/children")
    return [(int(pid), Path(f"/proc/{pid}/cmdline").read_bytes()) for pid in task.read_text().split()]


def mark(pid: int) -> str:
    """The line of a process's limits that tells whose it is."""
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line for line in limits if line.startswith("Max realtime timeout"))


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    guarded = Guarded(tmp_path)
    yield guarded
    guarded.end()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    gateway = Gateway()
    yield gateway
    gateway.shutdown()
    gateway.server_close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def test_the_node_is_restarted_after_its_runners_are_reaped_and_the_lease_revoked(
    guarded: Guarded, gateway: Gateway
) -> None:
    node = guarded.node()
    node.send(op="etcd", endpoints=[gateway.address])
    runners = [node.spawn(1), node.spawn(2)]
    gateway.look = lambda: [pid for pid in runners if Path(f"/proc/{pid}").exists()]
    node.lease(600)
    node.send(op="kill", runner=99)         # whatever the guard has read before this, it has read the lease
    again = node.spawn(3)
    runners.append(again)
    killed = time.monotonic()
    os.kill(node.pid, signal.SIGKILL)
    successor = guarded.node()
    assert gateway.requests == [("/v3/lease/revoke", {"ID": str(LEASE)}, [])]
    assert gateway.at - killed < 1.0        # 3 to 10 ms on a quiet machine; the bound is for a busy one
    assert successor.pid != node.pid
    successor.spawn(1)


@pytest.mark.parametrize("status", [0, 2])
def test_a_node_that_ends_on_purpose_is_not_restarted(guarded: Guarded, status: int) -> None:
    node = guarded.node()
    runner = node.spawn(1)
    node.exit(status)
    assert guarded.process.wait(PATIENCE_S) == status
    assert not alive(runner)
    assert "revoke" not in guarded.said()


def test_a_lease_given_back_is_not_revoked(guarded: Guarded, gateway: Gateway) -> None:
    node = guarded.node()
    node.send(op="etcd", endpoints=[gateway.address])
    node.lease(600)
    node.send(op="no-lease")
    node.exit(0)
    assert guarded.process.wait(PATIENCE_S) == 0
    assert not gateway.requests


def test_restarts_are_ever_later(guarded: Guarded) -> None:
    for delay in ("0.2", "0.4", "0.8"):
        guarded.node().exit(1)
        until(lambda delay=delay: f"starting it again in {delay} s" in guarded.said())      # type: ignore[misc]
    guarded.node()


def test_no_restart_on_request(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, "--no-restart")
    try:
        os.kill(guarded.node().pid, signal.SIGKILL)
        assert guarded.process.wait(PATIENCE_S) == 128 + signal.SIGKILL
    finally:
        guarded.end()


def test_runners_die_at_the_deadline(guarded: Guarded) -> None:
    node = guarded.node()
    runners = {1: node.spawn(1), 2: node.spawn(2)}
    deadline = boottime() + 0.3
    node.send(op="lease", id="1", deadline=deadline)
    node.receive("expired")
    assert boottime() >= deadline
    assert {node.receive("exited")["runner"] for _ in runners} == {1, 2}
    assert boottime() < deadline + 5.0
    assert not any(map(alive, runners.values()))
    node.send(op="spawn", runner=3, argv=SLEEP)
    node.receive("refused")
    node.lease(600)
    assert alive(node.spawn(4))


def test_a_lease_that_is_renewed_does_not_expire(guarded: Guarded) -> None:
    node = guarded.node()
    runner = node.spawn(1)
    for _ in range(10):
        node.lease(0.5)
        time.sleep(0.1)             # not a proof of anything: it only lets the first deadlines pass
    node.send(op="kill", runner=1)
    assert node.receive("exited")["reason"] == "asked"
    assert not alive(runner)


def test_runners_of_a_stopped_node_die_at_the_deadline(guarded: Guarded) -> None:
    node = guarded.node()
    runner = node.spawn(1)
    node.lease(0.5)
    node.spawn(2)
    os.kill(node.pid, signal.SIGSTOP)
    until(lambda: not alive(runner))
    os.kill(node.pid, signal.SIGCONT)
    node.receive("expired")


FAMILY = """
sleep 600 & echo $! >>{pids}
setsid sh -c 'setsid sleep 600 & echo $! >>{pids}; sleep 600' &
env -i setsid sh -c 'sleep 600 & echo $! >>{pids}; exec sleep 600' &
wait
"""
"""A runner whose job starts children, in sessions of their own and with an emptied environment."""


def family(node: Node, pids: Path) -> list[int]:
    node.spawn(1, ["sh", "-c", FAMILY.format(pids=pids)])
    until(lambda: pids.exists() and len(pids.read_text().split()) == 3)
    left = [int(pid) for pid in pids.read_text().split()]
    assert all(map(alive, left))
    return left


def test_nobody_outlives_the_guard(guarded: Guarded, tmp_path: Path) -> None:
    node = guarded.node()
    runner = node.spawn(2)
    left = family(node, tmp_path / "pids")
    guarded.process.kill()
    until(lambda: not any(map(alive, [node.pid, runner, *left])))


def test_the_process_that_survives_the_guard_is_replaced(guarded: Guarded, tmp_path: Path) -> None:
    node = guarded.node()
    left = family(node, tmp_path / "pids")

    def survivors() -> list[int]:
        return [pid for pid, command in children(guarded.process.pid) if b"children.py" in command]

    until(lambda: bool(survivors()))
    (first,) = survivors()
    os.kill(first, signal.SIGKILL)
    until(lambda: bool(survivors()) and survivors() != [first])
    (second,) = survivors()
    guarded.process.kill()
    until(lambda: not any(map(alive, [node.pid, second, *left])))


def test_what_a_runner_leaves_behind_is_killed_before_its_end_is_told(guarded: Guarded, tmp_path: Path) -> None:
    """Whoever hears of it may run its job again."""
    node = guarded.node()
    other = node.spawn(2)
    left = family(node, tmp_path / "pids")
    assert len({mark(pid) for pid in left}) == 1 and mark(left[0]) != mark(other)
    node.send(op="kill", runner=1)
    node.receive("exited")
    assert not any(map(alive, left)) and alive(other)
    until(lambda: not any(map(exists, left)))       # nor does it leave zombies


def test_daemons_of_a_live_runner_live_and_die_with_the_node(guarded: Guarded, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    node = guarded.node()
    node.spawn(1, ["sh", "-c", f"(setsid sleep 600 & echo $! >{pids}); exec sleep 600"])
    node.spawn(2)
    until(lambda: bool(pids.exists() and pids.read_text().strip()))
    daemon = int(pids.read_text())
    node.send(op="kill", runner=2)
    node.receive("exited")
    assert alive(daemon)
    node.exit(0)
    assert guarded.process.wait(PATIENCE_S) == 0
    assert not alive(daemon)


def test_runners_inherit_no_secrets_and_go_first_when_memory_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROTA_KEY_FILE", "hush!")
    guarded = Guarded(tmp_path)
    try:
        runner = guarded.node().spawn(1)
        until(lambda: b"sleep" in Path(f"/proc/{runner}/cmdline").read_bytes())
        environment = Path(f"/proc/{runner}/environ").read_bytes()
        assert b"hush!" not in environment and b"ROTA_GUARD_FD" not in environment
        assert Path(f"/proc/{runner}/oom_score_adj").read_text() == "1000\n"
        # stdio, two sockets, the permits, the lease, the tally
        assert len(list(Path(f"/proc/{runner}/fd").iterdir())) == 8
    finally:
        guarded.end()


def test_a_node_that_does_not_answer_is_killed_and_started_again(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, "--silence", "0.6")
    try:
        node = guarded.node()
        runner = node.spawn(1)
        node.send(op="beat")                # and then no more
        again = guarded.node()
        assert again.pid != node.pid and not alive(node.pid) and not alive(runner)
        assert "has not answered for 0.6 s" in guarded.said()
        assert alive(again.spawn(1))        # one that has not said anything yet has all the time it needs to start
    finally:
        guarded.end()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run jobs as somebody else")
def test_jobs_run_as_another_user(tmp_path: Path) -> None:
    """They can read neither the node's secrets nor what it was told, and end with it as ever."""
    nobody = pwd.getpwnam("nobody")
    key, open_to_all = tmp_path / "rota.key", Path(tempfile.mkdtemp())
    key.write_text("hush!")
    key.chmod(0o600)
    open_to_all.chmod(0o777)
    guarded = Guarded(tmp_path, "--runner-user", "nobody")
    try:
        node = guarded.node()
        script = (
            f"exec >{open_to_all}/said 2>&1; cd /; id -u; id -g; echo $HOME; "
            f"cat {key}; cat /proc/{node.pid}/environ; cat /proc/{guarded.process.pid}/environ; echo; exec sleep 600"
        )
        runner = node.spawn(1, ["sh", "-c", script])
        said = open_to_all / "said"
        until(lambda: b"sleep" in Path(f"/proc/{runner}/cmdline").read_bytes().partition(b"\0")[0])
        assert said.read_text().split()[:3] == [str(nobody.pw_uid), str(nobody.pw_gid), nobody.pw_dir]
        assert said.read_text().count("Permission denied") == 3 and "hush" not in said.read_text()
        guarded.process.kill()
        until(lambda: not alive(runner))
    finally:
        guarded.end()
        shutil.rmtree(open_to_all)


# -- the log ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", ["stalls", "is gone"])
def test_whoever_reads_the_log_keeps_nobody_waiting(tmp_path: Path, reader: str) -> None:
    """A runner writes more than any pipe takes; guard and runner go on, and what is lost is counted."""
    there, here = os.pipe()
    guarded = Guarded(tmp_path, stderr=here)
    os.close(here)
    if reader == "is gone":
        os.close(there)
    try:
        node = guarded.node()
        lines = 40_000
        script = f"import sys; [print('x' * 99, file=sys.stderr) for _ in range({lines})]"
        node.spawn(1, [sys.executable, "-c", script])
        assert node.receive("exited")["status"] == 0
        node.exit(3)
        again = guarded.node()
        guarded.process.send_signal(signal.SIGTERM)
        again.receive("signal")
        again.exit(0)
        if reader == "stalls":
            said = Path(f"/proc/self/fd/{there}").read_text().splitlines()
            (lost,) = [line.split()[2] for line in said if line.endswith("whoever reads it had stalled")]
            said_of_itself = 2
            assert 0 <= said.count("x" * 99) + int(lost.replace(",", "")) - lines <= said_of_itself
        assert guarded.process.wait(PATIENCE_S) == 0
    finally:
        guarded.end()
        if reader == "stalls":
            os.close(there)


def test_a_log_that_is_read_loses_nothing(tmp_path: Path) -> None:
    """Long lines and all, and the last word is in it."""
    there, here = os.pipe()
    guarded = Guarded(tmp_path, stderr=here)
    os.close(here)
    try:
        node = guarded.node()
        script = "import sys; [print(n, 'é' * (n % 7000), file=sys.stderr) for n in range(300)]; print('end', end='')"
        node.spawn(1, ["sh", "-c", f"exec 1>&2; {sys.executable} -c \"{script}\""])
        with os.fdopen(there, encoding="utf-8") as log:
            for number in range(300):
                assert log.readline() == f"{number} {'é' * (number % 7000)}\n"
            node.receive("exited")
            node.exit(0)
            assert log.readline() == "end\n"
        assert guarded.process.wait(PATIENCE_S) == 0
    finally:
        guarded.end()


# -- signals ---------------------------------------------------------------------------------------------------------


def test_stop_signals_are_for_the_guard_alone(guarded: Guarded) -> None:
    """A service manager may send them to every process that it finds."""
    node = guarded.node()
    runner = node.spawn(1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        for pid, _ in children(guarded.process.pid):
            os.kill(pid, number)
    again = node.spawn(2)                   # (so these have had their signals)
    assert alive(node.pid) and alive(runner) and alive(again)


def test_signals_first_and_second_are_the_nodes_third_is_the_end(guarded: Guarded) -> None:
    node = guarded.node()
    runner = node.spawn(1)
    for count, number in enumerate((signal.SIGTERM, signal.SIGINT), 1):
        guarded.process.send_signal(number)
        assert node.receive("signal") == {"op": "signal", "name": number.name, "count": count}
    guarded.process.send_signal(signal.SIGTERM)
    assert guarded.process.wait(PATIENCE_S) == 128 + signal.SIGKILL
    assert not alive(node.pid) and not alive(runner)


def test_a_node_that_drains_decides_the_exit_status(guarded: Guarded) -> None:
    node = guarded.node()
    guarded.process.send_signal(signal.SIGTERM)
    node.receive("signal")
    node.exit(0)
    assert guarded.process.wait(PATIENCE_S) == 0


def test_a_crash_while_it_drains_is_no_reason_to_restart(guarded: Guarded) -> None:
    node = guarded.node()
    guarded.process.send_signal(signal.SIGTERM)
    node.receive("signal")
    node.exit(5)
    assert guarded.process.wait(PATIENCE_S) == 5


def test_a_node_that_does_not_go_after_the_second_signal_is_killed(guarded: Guarded) -> None:
    node = guarded.node()
    for _ in range(2):
        guarded.process.send_signal(signal.SIGTERM)
        node.receive("signal")
    assert guarded.process.wait(PATIENCE_S) == 128 + signal.SIGKILL
    assert not alive(node.pid)


def test_a_signal_between_two_nodes_ends_the_guard(guarded: Guarded) -> None:
    for _ in range(3):
        guarded.node().exit(1)
    until(lambda: "starting it again in 0.8 s" in guarded.said())
    guarded.process.send_signal(signal.SIGTERM)
    assert guarded.process.wait(PATIENCE_S) == 1


# -- etcd ------------------------------------------------------------------------------------------------------------


def test_another_endpoint_is_tried(guarded: Guarded, gateway: Gateway) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        node = guarded.node()
        node.send(op="etcd", endpoints=[f"http://127.0.0.1:{closed.getsockname()[1]}", gateway.address[7:]])
        node.lease(600)
        node.exit(1)
        guarded.node()
    assert [path for path, _, _ in gateway.requests] == ["/v3/lease/revoke"]


def test_the_guard_logs_in_if_it_must(guarded: Guarded, gateway: Gateway, tmp_path: Path) -> None:
    """With the password as it is then."""
    gateway.token = "good"
    password_file = tmp_path / "password"
    node = guarded.node()
    node.send(op="etcd", endpoints=[gateway.address], user="rota", password_file=str(password_file), token="stale")
    password_file.write_text("secret\n")
    node.lease(600)
    node.exit(1)
    guarded.node()
    assert [path for path, _, _ in gateway.requests] == [
        "/v3/lease/revoke", "/v3/auth/authenticate", "/v3/lease/revoke"
    ]
    assert gateway.requests[1][1] == {"name": "rota", "password": "secret"}
    assert "is revoked" in guarded.said() and "secret" not in guarded.said()


@pytest.mark.parametrize(("by_grpc", "said"), [
    ("import sys, json; sys.exit(json.load(sys.stdin)['lease'] != '{lease:x}')", "is revoked, over gRPC"),
    ("import sys; sys.exit('no quorum')", "over gRPC 'no quorum'; it runs out"),
    ("", "could not be revoked"),
])
def test_an_etcd_without_a_gateway(guarded: Guarded, gateway: Gateway, by_grpc: str, said: str) -> None:
    """It answers 404 to everything: that says nothing of the lease."""
    gateway.off = True
    node = guarded.node()
    command = [sys.executable, "-c", by_grpc.format(lease=LEASE)] if by_grpc else []
    node.send(op="etcd", endpoints=[gateway.address], by_grpc=command)
    node.lease(600)
    node.exit(1)
    guarded.node()
    assert said in guarded.said() and "had already run out" not in guarded.said()


def test_a_store_that_is_down_does_not_keep_the_node_from_coming_back(guarded: Guarded) -> None:
    node = guarded.node()
    node.send(op="etcd", endpoints=["http://127.0.0.1:1"])
    node.lease(600)
    node.exit(1)
    guarded.node()
    assert "could not be revoked" in guarded.said()


def test_nonsense_does_not_end_the_guard(guarded: Guarded) -> None:
    node = guarded.node()
    node.sock.send(b"no json")
    node.send(op="no such thing")
    node.send(op="spawn")
    node.spawn(1)


def test_the_command_line_is_checked() -> None:
    wrong = subprocess.run([sys.executable, "-I", "-S", str(GUARD)], capture_output=True, check=False)
    assert wrong.returncode == 2 and b"--attach" in wrong.stderr
