"""The command line as its users meet it."""

from __future__ import annotations

import base64
import json
import re
import signal
import stat
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rota.client.calls.pickling import dump_arguments, dump_function
from rota.client.model import Header
from rota.client.wire.codec import PYTHON, encode_body, function_digest
from rota.client.wire.keyring import UNSIGNED
from rota.worker.guard.revoke import SocketConnection

from .processes import ROTA, Running, dev, environment, rota, wait_ready

TASKS = '''
import time
import rota

@rota.task
def add(a, b=1):
    return a + b

@rota.task(max_attempts=1)
def refuse(why):
    raise ValueError(why)

@rota.task(queue="slow")
def slow(seconds):
    time.sleep(seconds)

@rota.task
async def shout(text):
    return text.upper()

@rota.task(keep_finished=60)
async def whisper(text, times=1):
    return times * text.lower()
'''
EMPTY_CALL = dump_arguments((), {})[0]
COMMANDS = (
    "demo", "dev", "init", "token", "node", "doctor", "reset", "enqueue", "job", "queues", "finished", "failed",
    "nodes", "queue", "cancel", "shell",
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("dev")
    (folder / "shop.py").write_text(TASKS)
    with dev(folder, "--app", "shop", "--sync", "1") as node:
        yield node


def test_help_teaches() -> None:
    overview = rota("--help")
    assert overview.returncode == 0
    assert all(command in overview.stdout for command in COMMANDS)
    for command in COMMANDS:
        shown = rota(command, "--help")
        assert shown.returncode == 0, command
        assert "Usage: rota " + command in shown.stdout
    assert "rota enqueue shop.tasks:thumbnail cat.jpg" in rota("enqueue", "--help").stdout


def test_without_a_command_it_shows_help() -> None:
    assert "Usage: rota" in rota().stdout


def test_enqueue_prints_an_id_and_the_job_ends(running: Running) -> None:
    done = running.rota("enqueue", "shop:add", "40", "2")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[0-9a-z]{12}_[0-9a-f]{8}_0\n", done.stdout)
    assert running.json("enqueue", "shop:add", "40", "--set", "b=2", "--wait")["result"] == 42


@pytest.mark.parametrize(("arguments", "said"), [
    (["shop:add", "40", "2"], "42\n"),
    (["shop:add", "cat", ".jpg"], "cat.jpg\n"),
    (["shop:add", "[1]", "[2]"], "[1, 2]\n"),
    (["shop:add", '"4"', '"2"'], "42\n"),
    (["shop:shout", "--set", "text=hello"], "HELLO\n"),
])
def test_arguments_are_json_or_text(running: Running, arguments: list[str], said: str) -> None:
    done = running.rota("enqueue", *arguments, "--wait", "--timeout", "30")
    assert (done.returncode, done.stdout) == (0, said), done.stderr


def test_a_failed_job_is_told_with_its_error(running: Running) -> None:
    done = running.rota("enqueue", "shop:refuse", "too late", "--wait", "--timeout", "30")
    assert done.returncode == 1
    assert "ValueError: too late" in done.stderr
    failed = next(entry for entry in running.json("failed") if "too late" in entry["error"])
    assert failed["task"] == "shop:refuse"
    told = running.rota("job", failed["id"])
    assert "is failed" in told.stdout
    assert "raise ValueError(why)" in told.stdout
    assert "shop:refuse" in running.rota("failed").stdout


def test_dev_tells_its_tasks_and_a_line_for_each_job(running: Running) -> None:
    done = running.rota("enqueue", "shop:add", "20", "--set", "b=22", "--wait", "--timeout", "30")
    assert done.stdout.strip() == "42"
    told = running.log.read_text()
    assert f"ready at {running.url}, process " in told
    assert "shop:add(a, b=" in told and "shop:slow(seconds)  (plain function, queue slow)" in told
    assert re.search(r"^\d\d:\d\d:\d\d  ok +\d+ ms  shop:add  \w{12}_\w{8}_0$", told, re.MULTILINE), told


def test_where_a_job_is_and_why(running: Running) -> None:
    job_id = running.rota("enqueue", "shop:add", "1", "--after", "3600").stdout.strip()
    assert running.json("job", job_id)["place"] == "scheduled"
    assert "in 60 min" in running.rota("job", job_id).stdout
    assert any(queue["scheduled"] == 1 for queue in running.json("queues"))


def test_tables_for_people(running: Running) -> None:
    nodes = running.rota("nodes").stdout
    assert "master" in nodes
    assert running.url in nodes
    (node,) = running.json("nodes")
    assert node["master"] is True
    assert node["capacity"]["sync"] == 1
    assert running.rota("queues").stdout


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (["enqueue", "shop:nothing"], 4, "shop:nothing"),
    (["enqueue", "nonsense"], 4, "nonsense"),
    (["enqueue", "shop:add", "--set", "b"], 2, "name=value"),
    (["enqueue", "shop:add", "1", "--queue", "a/b"], 4, "not a valid queue name"),
    (["job", "k3f9q2m7xa5t_0000001f_0"], 5, "k3f9q2m7xa5t_0000001f_0"),
    (["job", "nonsense"], 2, "not a valid job id"),
    (["nodes", "--token-file", "nowhere"], 2, "nowhere"),
    (["noodles"], 2, "noodles"),
])
def test_errors_name_the_cause(running: Running, arguments: list[str], code: int, said: str) -> None:
    done = running.rota(*arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert said in done.stderr


def test_nobody_there() -> None:
    done = rota("nodes", "--url", "http://127.0.0.1:9")
    assert done.returncode == 3
    assert "127.0.0.1:9" in done.stderr


@pytest.mark.parametrize(("arguments", "said"), [
    ([], "no etcd endpoint is given"),
    (["--etcd", "127.0.0.1:9", "--http", "0.0.0.0:0"], "rota init"),
    (["--etcd", "127.0.0.1:9", "--key-file", "no", "--token-file", "no"], "--key-file: no does not exist"),
    (["--etcd", "127.0.0.1:9", "--ttl", "1"], "--ttl is 1"),
])
def test_a_node_with_a_wrong_setting_ends_with_2(arguments: list[str], said: str) -> None:
    done = rota("node", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_node_whose_app_cannot_be_imported_ends_with_2(running: Running, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    done = running.rota(
        "node", "--etcd", running.etcd, "--etcd-allow-broken", "--http", "127.0.0.1:0", "--app", "broken", cwd=tmp_path
    )
    assert done.returncode == 2, done.stderr
    assert "no_such_module" in done.stderr


def test_a_node_says_that_there_is_no_etcd() -> None:
    process = subprocess.Popen(
        [ROTA, "node", "--etcd", "127.0.0.1:9", "--http", "127.0.0.1:0"],
        env=environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said = ""
    try:
        while "no etcd answers at 127.0.0.1:9" not in said:     # the suite's time limit ends this
            line = process.stderr.readline()
            assert line, said
            said += line
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_port_that_is_taken(running: Running, tmp_path: Path) -> None:
    done = running.rota("node", "--etcd", running.etcd, "--etcd-allow-broken", "--http", running.url[7:], cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot listen" in done.stderr


def test_dev_is_for_its_own_user_alone(running: Running) -> None:
    """What a web page can send, or another user: nothing of it arrives. (Its own user's clients are this module's.)"""
    assert running.etcd.startswith("unix://") and Path(running.etcd[7:]).parent.stat().st_mode & 0o077 == 0
    job = json.dumps({"task": "shop:add", "args": [1]}).encode()
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer ", "Host": "localhost"}):
        request = urllib.request.Request(f"{running.url}/v1/jobs", job, {"Content-Type": "text/plain"} | headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        refused.value.close()
        assert refused.value.code == 401
    token = running.rota("token").stdout.strip()
    request = urllib.request.Request(f"{running.url}/v1/jobs", job, {"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 201


def test_what_nobody_has_signed_is_not_run(running: Running, tmp_path: Path) -> None:
    """As it was: written into etcd by somebody else, with code by value."""
    code = dump_function(lambda: (tmp_path / "ran").touch())
    body, header = attack(code)
    token = {"task": header.task, "queue": "default", "priority": 0, "order": 1, "count": 1, "mode": "sync", "at": 0,
             "function": header.function, "python": PYTHON, "v": 1}
    said = {    # its token last: a node may take it at once
        "/rota-data/default/bodies/aaaaaaaaaaaa-00000001": body,
        f"/rota-data/default/functions/{header.function}": UNSIGNED.sign_function(code, "default"),
        "/rota/default/jobs/default/100/0000000000000001/aaaaaaaaaaaa-00000001": json.dumps(token).encode(),
    }
    for key, value in said.items():
        etcd(running.etcd, "kv/put", key=key.encode(), value=value)
    waited = running.rota("enqueue", "shop:add", "1", "--wait")
    assert waited.stdout == "2\n"
    view = running.json("job", "aaaaaaaaaaaa_00000001_0")
    assert view["place"] == "waiting" and "unsigned" in view["why"], view
    assert not (tmp_path / "ran").exists()


def attack(code: bytes) -> tuple[bytes, Header]:
    header = Header(
        "aaaaaaaaaaaa-00000001", "x:y", "default", "sync", [0], [len(EMPTY_CALL)], 0.0,
        function=function_digest(code), python=PYTHON,
    )
    return encode_body(header, [EMPTY_CALL]), header


def test_init_makes_files_for_the_owner_alone(tmp_path: Path) -> None:
    assert rota("init", "--directory", str(tmp_path)).returncode == 0
    key, token = tmp_path / "rota.key", tmp_path / "rota.token"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (key, token)] == [0o600, 0o600]
    assert re.fullmatch(r"\S+:[0-9a-f]{64}\n", key.read_text())
    again = rota("init", "--directory", str(tmp_path))
    assert again.returncode == 2
    assert "--add-key" in again.stderr
    before = key.read_text()
    assert rota("init", "--directory", str(tmp_path), "--keep").returncode == 0
    assert key.read_text() == before
    rota("init", "--directory", str(tmp_path), "--add-key")
    assert key.read_text().endswith(before)
    rota("init", "--directory", str(tmp_path), "--use-key")
    assert key.read_text().startswith(before)
    assert len(key.read_text().splitlines()) == 2


def test_off_loopback_key_and_token_are_asked_for(running: Running, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(TASKS)
    rota("init", "--directory", str(tmp_path))
    secrets = {"ROTA_KEY_FILE": "rota.key", "ROTA_TOKEN_FILE": "rota.token"}
    log = tmp_path / "node.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [ROTA, "node", "--app", "shop", "--etcd", running.etcd, "--etcd-allow-broken", "--cluster", "signed",
             "--http", "0.0.0.0:0", "--ttl", "2"],
            cwd=tmp_path, env=environment(**secrets), stdout=output, stderr=output,
        )  # fmt: skip
    try:
        url = _address(running.etcd, "signed", process, log)
        wait_ready(url, process, log)
        asked = {"ROTA_URL": url, "cwd": tmp_path}
        assert rota("enqueue", "shop:add", "1", "--wait", **asked, **secrets).stdout == "2\n"     # type: ignore[arg-type]
        without_token = rota("nodes", **asked)     # type: ignore[arg-type]
        assert (without_token.returncode, "token" in without_token.stderr) == (4, True), without_token.stderr
        without_key = rota("enqueue", "shop:add", "1", **asked, ROTA_TOKEN_FILE="rota.token")     # type: ignore[arg-type]
        assert without_key.returncode == 4
        assert "key" in without_key.stderr
    finally:
        process.terminate()
        assert process.wait(30) == 0, log.read_text()


def etcd(endpoint: str, path: str, **fields: bytes) -> Any:
    """etcd's JSON gateway, on a socket."""
    gateway = SocketConnection(endpoint.removeprefix("unix://"), 5.0)
    said = {name: base64.b64encode(value).decode() for name, value in fields.items()}
    gateway.request("POST", f"/v3/{path}", json.dumps(said))
    answer = json.load(gateway.getresponse())
    gateway.close()
    return answer


def _address(endpoint: str, cluster: str, process: subprocess.Popen[bytes], log: Path) -> str:
    """Where a node on port 0 listens, from its member record, through etcd's JSON gateway."""
    prefix = f"/rota/{cluster}/nodes/".encode()
    query = {"key": prefix, "range_end": prefix[:-1] + b"0"}
    deadline = time.monotonic() + 60
    while True:
        found = etcd(endpoint, "kv/range", **query).get("kvs", [])
        if found:
            address: str = json.loads(base64.b64decode(found[0]["value"]))["address"]
            return "http://127.0.0.1:" + address.rpartition(":")[2]
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def test_a_finished_job_can_be_looked_at(running: Running) -> None:
    assert running.rota("finished").stdout.strip() == "no finished jobs are kept"
    done = running.rota("enqueue", "shop:whisper", "HI", "--set", "times=2", "--wait", "--json")
    job = json.loads(done.stdout)["id"]
    assert json.loads(done.stdout)["result"] == "hihi"
    assert f"{job}" in running.rota("finished").stdout
    (view,) = json.loads(running.rota("finished", "--json").stdout)
    assert (view["id"], view["task"]) == (job, "shop:whisper")
    shown = running.rota("job", job, "--arguments").stdout
    assert "is finished" in shown and "('HI', times=2)" in shown
    assert json.loads(running.rota("job", job, "--arguments", "--json").stdout)["arguments"] == "('HI', times=2)"
    gone = json.loads(running.rota("enqueue", "shop:shout", "x", "--wait", "--json").stdout)["id"]
    refused = running.rota("job", gone, "--arguments")
    assert refused.returncode == 5 and "no arguments of job" in refused.stderr


def test_reset_asks_first_and_spares_a_cluster_with_nodes(running: Running) -> None:
    wrong = rota("reset", "--etcd", running.etcd, "--yes", "another")
    assert wrong.returncode == 2 and "is not the name of the cluster (default)" in wrong.stderr
    refused = rota("reset", "--etcd", running.etcd, "--yes", "default")
    assert refused.returncode == 2 and "has nodes: stop them first" in refused.stderr
    done = rota("reset", "--etcd", running.etcd, "--cluster", "empty", "--yes", "empty")
    assert done.stdout.strip() == "0 keys of cluster empty deleted"


def test_the_doctor(running: Running) -> None:
    found = json.loads(running.rota("doctor", "--etcd", running.etcd, "--json").stdout)
    assert {"grade": "good", "text": f"{running.url} is ready"} in found
    etcd = next(finding for finding in found if "etcd " in finding["text"])
    assert etcd["grade"] in ("good", "warning", "bad")       # depends on which etcd this machine has
    ill = rota("doctor", "--etcd", "127.0.0.1:9", "--url", "http://127.0.0.1:9")
    assert ill.returncode == 1
    assert "no etcd answers at 127.0.0.1:9" in ill.stdout
    assert "http://127.0.0.1:9 does not answer" in ill.stdout


def test_interrupting_dev_ends_everything(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(TASKS)
    with dev(tmp_path, "--app", "shop", "--sync", "1") as node:
        node.process.send_signal(signal.SIGINT)
        assert node.process.wait(30) == 0, node.log.read_text()


