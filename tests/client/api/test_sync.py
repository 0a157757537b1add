"""`Client`, the default client and what tasks do through it: threads, forks, the end of the process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rota
from rota.client.api.clients import Client
from rota.client.calls import default
from rota.client.errors import InvalidJob, JobFailed, PartlyEnqueued, ResultTimeout, RotaError, Unreachable
from rota.client.model import JOBS_PER_BUNDLE, Enqueue, Mode, Receipt
from rota.client.process import background
from rota.client.transports import transport
from rota.client.transports.transport import Patience
from rota.client.wire.codec import split_body
from rota.client.wire.keyring import UNSIGNED, Keyring, Seal
from rota.client.wire.views import JobView

from ..fake_service import KEYRING, TOKEN, FakeNode, FakeService, fake_node, fake_node_in_thread
from ..sample_tasks import add, echo, fail, shout

ROOT = Path(__file__).parents[3]


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with fake_node_in_thread() as running:
        yield running


@pytest.fixture
def client(node: FakeNode) -> Iterator[Client]:
    with Client(node.url, token=TOKEN, key=KEYRING) as opened:
        yield opened


@pytest.fixture
def connected(node: FakeNode) -> Iterator[Client]:
    yield rota.connect(node.url, token=TOKEN, key=KEYRING)
    default.replace(None)


def test_a_job_there_and_back(client: Client) -> None:
    handle = client.enqueue(add, 1, b=2)
    assert handle.result(timeout=60) == handle.result() == 3
    assert handle.status().place == "finished"
    assert client.handle(handle.id).result() == 3
    with pytest.raises(JobFailed, match="no"):
        client.enqueue(fail, "no").result()
    with pytest.raises(InvalidJob):
        client.enqueue(add)  # type: ignore[call-overload]
    assert client.enqueue(add.name, 4).result() == 4
    assert client.enqueue(lambda x: -x, 4).result() == -4


def test_many(client: Client, node: FakeNode) -> None:
    handles = client.enqueue_many(add, ((n,) for n in range(1_000)))
    assert [handle.result() for handle in handles] == list(range(1_000))
    assert [bundle.count for bundle in node.store.bundles.values()] == [60] * 16 + [40]
    with pytest.raises(PartlyEnqueued, match="960 jobs are stored"):
        client.enqueue_many(add, [(1,)] * 1_000 + [()])
    assert len(client.enqueue_many(lambda x: x, [(1,)])) == 1


def test_calls_are_made_on_the_callers_thread(client: Client) -> None:
    seen: list[threading.Thread] = []

    def calls() -> Iterator[tuple[int]]:
        for n in range(100):
            seen.append(threading.current_thread())
            yield (n,)

    client.enqueue_many(add, calls())
    assert set(seen) == {threading.current_thread()}


def test_a_result_in_time_or_not() -> None:
    service = FakeService()
    service.run = False
    with fake_node_in_thread(service) as node, Client(node.url, token=TOKEN, key=KEYRING) as client:
        handle = client.enqueue(add, 1)
        with pytest.raises(ResultTimeout):
            handle.result(timeout=0.05)


def test_pages(client: Client) -> None:
    assert [node.node for node in client.nodes()] == ["n1"]
    assert client.queues()[0].queue == "default" and client.failed(limit=1)[0].error and client.stats().nodes == 1


def test_many_threads_share_a_connection(client: Client, node: FakeNode) -> None:
    results: dict[int, Any] = {}
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            mine = [client.enqueue(add, number, n) for n in range(20)]
            results[number] = [handle.result(timeout=30) for handle in mine]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert results == {number: [number + n for n in range(20)] for number in range(32)}
    assert node.store.jobs == 640
    assert len(node.store.bundles) < 640, "what comes from several threads at once travels together"
    assert len(node.port._sockets) <= 2, "one for all, and one for who came alone several times in a row"


def test_several_clients_share_a_thread(node: FakeNode) -> None:
    before = threading.active_count()
    clients = [Client(node.url, token=TOKEN, key=KEYRING) for _ in range(5)]
    for client in clients:
        client.enqueue(add, 1)
    assert threading.active_count() <= before + 1
    assert len(node.port._sockets) == 5
    for client in clients:
        client.close()
        client.close()
    assert clients[0].enqueue(add, 1).result() == 1, "used again, it connects again"
    clients[0].close()


def test_no_node_there() -> None:
    with Client("127.0.0.1:1", retry_window_s=0.3) as client:
        with pytest.raises(Unreachable, match="ROTA_URL"):
            client.enqueue(add, 1)
        with pytest.raises(Unreachable):
            client.enqueue_many(add, [(1,)])
        with pytest.raises(Unreachable):
            client.handle("k3f9q2m7xa5t-0000001f").result()


# -- the default client


def test_tasks_enqueue_through_the_default_client(connected: Client) -> None:
    assert add.enqueue(1, 2).result(timeout=60) == 3
    assert shout.using(queue="q").enqueue("hi", marks=2).result(timeout=60) == "HI!!"
    assert [handle.result() for handle in add.enqueue_many([add.call(1), (2, 3)])] == [1, 5]


def test_coroutines_too(connected: Client, node: FakeNode) -> None:
    async def work() -> list[Any]:
        handle = await add.aenqueue(1, b=2)
        handles = await add.aenqueue_many([(3,), (4,)])
        concurrent = await asyncio.gather(*(shout.aenqueue(str(n)) for n in range(64)))
        assert (await handle.astatus()).place == "finished"
        return [await handle, await handle.aresult(timeout=60), *await asyncio.gather(*handles), await concurrent[63]]

    for _ in range(2):      # each time on a new event loop
        assert asyncio.run(work()) == [3, 3, 3, 4, "63!"]
    assert len(node.port._sockets) == 1


def test_connecting_again_closes_the_one_before(connected: Client, node: FakeNode) -> None:
    add.enqueue(1)
    rota.connect(node.url, token=TOKEN, key=KEYRING)
    add.enqueue(1)
    assert len(node.port._sockets) == 1


def test_the_default_client_comes_from_the_environment(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key, token = tmp_path / "key", tmp_path / "token"
    for path, text in ((key, "k1:" + b"0123456789abcdef0123456789abcdef".hex()), (token, TOKEN)):
        path.write_text(text + "\n")
        path.chmod(0o600)
    monkeypatch.setenv("ROTA_URL", f"http://127.0.0.1:1,{node.url}")
    monkeypatch.setenv("ROTA_KEY_FILE", str(key))
    monkeypatch.setenv("ROTA_TOKEN_FILE", str(token))
    default.replace(None)
    try:
        assert add.enqueue(1).result(timeout=60) == 1
    finally:
        default.replace(None)


class Recorder:
    """A transport as a runner has one: somebody else signs."""

    def __init__(self) -> None:
        self.bundles: list[Enqueue] = []
        self.functions: list[str] = []

    async def seal(self, patience: Patience) -> Seal:
        return Seal(UNSIGNED, "")

    @property
    def jobs_per_bundle(self) -> int:
        return JOBS_PER_BUNDLE

    async def enqueue(
        self, bundles: list[Enqueue], seen_revision: int, patience: Patience
    ) -> list[Receipt | RotaError]:
        self.bundles += bundles
        return [Receipt(bundle.bundle, 1, 1) for bundle in bundles]

    async def put_function(self, digest: str, code: bytes, patience: Patience) -> None:
        self.functions.append(digest)

    async def task_mode(self, task: str, patience: Patience) -> Mode | None:
        return "sync"

    def follow(self, bundles: Any, follower: transport.Follower) -> None:
        for bundle in bundles:
            follower.refuse(bundle, RotaError("a job does not wait for another"))

    def unfollow(self, bundles: Any) -> None:
        pass

    async def job(self, job_id: str) -> JobView:
        return JobView(job_id, "waiting")

    async def close(self) -> None:
        pass


def test_an_installed_transport_is_the_default_clients() -> None:
    default.replace(None)
    recorder = Recorder()
    transport.install(recorder)
    try:
        handle = add.enqueue(1, 2)
        asyncio.run(add.aenqueue(3))
        add.enqueue_many([(n,) for n in range(100)])
        assert [bundle.count for bundle in recorder.bundles] == [1, 1, 60, 40]
        assert split_body(recorder.bundles[0].body)[0].tags == b""
        assert Keyring({"k": bytes(32)}).sign_body(recorder.bundles[0].body, "c")
        assert handle.status().place == "waiting"
        with pytest.raises(RotaError, match="does not wait"):
            handle.result(timeout=60)
    finally:
        transport.install(None)
        default.replace(None)


# -- the process: fork and end


def script(node: FakeNode, body: str) -> str:
    """Run a script with a default client connected to the node; it must end well and print no complaint (but the one
    of Python 3.12 and later, that a process with threads forks: so do Gunicorn, uWSGI and multiprocessing)."""
    head = (
        "import asyncio, os, sys, threading, multiprocessing, rota\n"
        "from rota.client.wire.keyring import Keyring\n"
        "from tests.client.sample_tasks import add, echo\n"
        "key = Keyring({'k1': b'0123456789abcdef0123456789abcdef'})\n"
        f"client = rota.connect({node.url!r}, token={TOKEN!r}, key=key)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", head + body],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_process_that_just_ends(node: FakeNode) -> None:
    assert script(node, "pass") == ""
    assert script(node, "h = asyncio.run(add.aenqueue(1)); print(h.result()); add.enqueue_many([(1,)] * 99)") == "1\n"


FORK = """
first = add.enqueue(1)
assert first.result(timeout=60) == 1
for n in range(12): add.enqueue(n)      # alone, so often that it gets a socket of its own
busy = [threading.Thread(target=lambda: [add.enqueue(n) for n in range(30)]) for _ in range(4)]
for thread in busy: thread.start()
pids = []
for number in range(4):
    pid = os.fork()
    if pid == 0:
        for n in range(12): handle = add.enqueue(10, number)
        assert handle.result(timeout=60) == 10 + number
        assert handle.id[:12] != first.id[:12], "a session of its own"
        assert first.result(timeout=60) == 1, "the parent's handles work"
        assert [h.result(timeout=60) for h in client.enqueue_many(add, [(1,), (2,)])] == [1, 2]
        assert asyncio.run(add.aenqueue(5)).result(timeout=60) == 5
        sys.exit(7)
    pids.append(pid)
for pid in pids:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
for thread in busy: thread.join()
assert add.enqueue(2).result(timeout=60) == 2, "the parent goes on"
print("good")
"""

POOL = """
def work(number):
    return add.enqueue(number).result(timeout=60)

add.enqueue(1)
with multiprocessing.get_context("fork").Pool(3) as pool:
    assert pool.map(work, range(20)) == list(range(20))
print("good")
"""


@pytest.mark.parametrize("body", [FORK, POOL])
def test_after_a_fork_the_child_has_a_client_of_its_own(node: FakeNode, body: str) -> None:
    assert script(node, body) == "good\n"
    ids = [bundle.bundle for bundle in node.store.bundles.values()]
    assert len(ids) == len(set(ids)) and len({bundle[:12] for bundle in ids}) >= 4


def test_names_are_drawn_anew_after_a_fork(node: FakeNode) -> None:
    out = script(node, """
names = __import__("rota.client.ids", fromlist=["Names"]).Names()
print(names.next(), flush=True)
if os.fork() == 0:
    print(names.next(), flush=True)
    os._exit(0)
os.wait()
print(names.next())
""")
    parent, child, parent_again = out.split()
    assert parent[:12] == parent_again[:12] != child[:12]


def test_the_background_thread_cannot_wait_for_itself(client: Client) -> None:
    client.enqueue(add, 1)
    with background.lock:
        on = background.background()

    async def wrong() -> None:
        client.enqueue_many(add, [(1,)])

    with pytest.raises(RuntimeError, match="cannot wait for it"):
        on.run(wrong())


async def test_a_sync_client_in_a_coroutine_blocks_but_works() -> None:
    """The node must not be on the same loop, of course."""
    async with fake_node():
        pass
    with fake_node_in_thread() as node, Client(node.url, token=TOKEN, key=KEYRING) as client:
        assert client.enqueue(echo, 1).result(timeout=60) == ((1,), {})
