"""A node without a cluster: keeps bundles in memory and runs their jobs on the spot. Behind a real `HttpPort`, it is
the other end for tests of the client."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from rota.client.calls.pickling import dump_value, load_arguments, load_function
from rota.client.errors import EnqueueError, InvalidJob, JobUnknown, RotaError, UnknownTask
from rota.client.ids import parse_job_id
from rota.client.model import HEADER_SCHEMA_MAX, JOBS_PER_BUNDLE_MAX, Enqueue, Receipt, ResultEntry, Results
from rota.client.tasks.task import registry
from rota.client.wire.codec import encode_results, enqueue_digest
from rota.client.wire.keyring import Keyring, Seal
from rota.client.wire.views import EventsPage, FailedView, JobEvent, JobView, NodeView, QueueView, StatsView, TaskView
from rota.cluster.port.http import HttpPort

Push = Callable[[str, bytes], None]

TOKEN = "a-token-for-tests"
KEYRING = Keyring({"k1": b"0123456789abcdef0123456789abcdef"})


class FakeStore:
    """What several fake nodes share."""

    def __init__(self) -> None:
        self.revision = 100
        self.receipts: dict[str, tuple[bytes, Receipt]] = {}
        self.bundles: dict[str, Enqueue] = {}
        self.results: dict[str, bytes] = {}
        self.functions: dict[str, bytes] = {}
        self.followers: dict[str, list[Push]] = {}
        self.runs = 0

    @property
    def jobs(self) -> int:
        return sum(bundle.count for bundle in self.bundles.values())


class FakeService:
    """A `NodeService`. `run=False` only stores; `hold` makes every enqueue wait; `fault` is raised by the next one."""

    def __init__(
        self, keyring: Keyring = KEYRING, store: FakeStore | None = None, *, cluster: str = "test", node: str = "n1"
    ) -> None:
        self.cluster = cluster
        self.node = node
        self.seal = Seal(keyring, cluster)
        self.store = store or FakeStore()
        self.run = True
        self.hold: asyncio.Event | None = None
        self.faults: list[RotaError] = []
        self.refusals: list[EnqueueError] = []
        self.requests: list[list[Enqueue]] = []
        self.seen_revisions: list[int] = []
        self.follow_calls: list[list[str]] = []
        self.puts = 0
        self.not_ready: str | None = None

    async def enqueue(self, bundles: list[Enqueue], seen_revision: int) -> list[Receipt | EnqueueError]:
        self.requests.append(bundles)
        self.seen_revisions.append(seen_revision)
        if self.faults:
            raise self.faults.pop(0)
        answers = [self._store(bundle) for bundle in bundles]
        if self.hold is not None:
            await self.hold.wait()
        return answers

    def _store(self, bundle: Enqueue) -> Receipt | EnqueueError:
        if self.refusals:
            return self.refusals.pop(0)
        store = self.store
        digest = enqueue_digest(bundle.body)
        if bundle.bundle in store.receipts:
            before, receipt = store.receipts[bundle.bundle]
            return receipt if before == digest else InvalidJob(f"{bundle.bundle} was enqueued with other contents")
        try:
            header, payloads = self.seal.keyring.verify(bundle.body, self.cluster)
        except EnqueueError as error:
            return error
        if not header.function and header.task not in registry:
            return UnknownTask(f"no node has ever registered {header.task!r}")
        store.revision += 1
        receipt = Receipt(bundle.bundle, store.revision, store.revision)
        store.receipts[bundle.bundle] = digest, receipt
        store.bundles[bundle.bundle] = bundle
        if self.run:
            asyncio.get_running_loop().call_soon(self._run, bundle.bundle, header.codec, payloads)
        return receipt

    def _run(self, bundle: str, codec: Any, payloads: list[bytes]) -> None:
        enqueue = self.store.bundles[bundle]
        if enqueue.function:
            blob = self.store.functions[enqueue.function]
            code = self.seal.keyring.open_function(enqueue.function, blob, self.cluster).code
            function: Any = load_function(code)
        else:
            function = registry[enqueue.task].function
        entries = [_call(function, index, codec, payload) for index, payload in enumerate(payloads)]
        self.store.runs += len(entries)
        self.store.results[bundle] = encode_results(
            self.seal.keyring.sign_results(Results(bundle, entries), self.cluster, whole=True)
        )
        for push in self.store.followers.get(bundle, []):
            push(bundle, self.store.results[bundle])

    def run_all(self) -> None:
        """Run what only was stored so far."""
        for bundle in self.store.bundles.values():
            if bundle.bundle not in self.store.results:
                header, payloads = self.seal.keyring.verify(bundle.body, self.cluster)
                self._run(bundle.bundle, header.codec, payloads)

    async def put_function(self, digest: str, blob: bytes) -> None:
        self.puts += 1
        self.seal.keyring.open_function(digest, blob, self.cluster)
        self.store.functions[digest] = blob

    async def follow(self, session: str, bundles: list[str], push: Push) -> Callable[[], None]:
        self.follow_calls.append(bundles)
        for bundle in bundles:
            assert bundle.startswith(session + "-")
            if bundle not in self.store.receipts:
                raise JobUnknown(f"no trace of {bundle}", bundle)
        for bundle in bundles:
            if bundle in self.store.results:
                push(bundle, self.store.results[bundle])
            self.store.followers.setdefault(bundle, []).append(push)

        def end() -> None:
            for bundle in bundles:
                self.store.followers[bundle].remove(push)

        return end

    jobs_per_bundle = JOBS_PER_BUNDLE_MAX
    header_schema: int = HEADER_SCHEMA_MAX

    async def task_mode(self, task: str) -> str | None:
        known = registry.get(task)
        return known.info.mode if known else None

    async def job(self, job_id: str) -> JobView:
        bundle = self.store.bundles.get(parse_job_id(job_id)[0])
        if bundle is None:
            raise JobUnknown(f"there is no job {job_id}", job_id)
        place: Any = "finished" if bundle.bundle in self.store.results else "waiting"
        return JobView(job_id, place, bundle.task, bundle.queue)

    async def parameters(self, task: str) -> None:
        return None

    async def tasks(self) -> list[TaskView]:
        return [TaskView(name, task.info.mode, "default") for name, task in registry.items()]

    async def nodes(self) -> list[NodeView]:
        return [NodeView(self.node, "", "active", True, ["*"], list(registry), {"sync": 1}, 0, "3.11", "0.1.0", 0.0)]

    async def queue_part(self, after: str, limit: int) -> tuple[list[QueueView], str]:
        return [QueueView("default", waiting=self.store.jobs)], ""

    async def failed(self, queue: str | None, limit: int, after: str = "") -> tuple[list[FailedView], str]:
        views = [FailedView("k3f9q2m7xa5t_00000001_0", "m:f", queue or "default", "E: <b>", 1, "n1", 0.0)]
        return views[:limit], ""

    async def stats(self) -> StatsView:
        return StatsView(self.store.revision, self.node, 1, self.store.jobs, 0, 0, 0, None, 0.0, 0.0)

    def why_not_ready(self) -> str | None:
        return self.not_ready


class TellingService(FakeService):
    """Its jobs have as many events as `tell` was called, and are over when it said so. A cursor is a number."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[EventsPage] = []
        self.more = asyncio.Event()
        self.asked: list[tuple[str, str]] = []

    def tell(self, *, over: bool = False) -> None:
        number = len(self.pages) + 1
        self.pages.append(EventsPage([JobEvent("progress", float(number))], str(number), over))
        more, self.more = self.more, asyncio.Event()
        more.set()

    async def news(self, job_id: str, after: str, wait_s: float) -> EventsPage:
        self.asked.append((job_id, after))
        if job_id == "nonsense":
            raise InvalidJob("no job id")
        at = int(after or 0)
        while at >= len(self.pages):
            await self.more.wait()
        return self.pages[at]


def _call(function: Any, index: int, codec: Any, payload: bytes) -> ResultEntry:
    try:
        args, kwargs = load_arguments(codec, payload)
        result = function(*args, **kwargs)
        if asyncio.iscoroutine(result):
            result = _drive(result)
        value, value_codec = dump_value(result, codec)
    except Exception as error:
        text = traceback.format_exc()
        return ResultEntry(index, "failed", error=f"{type(error).__name__}: {error}", traceback=text)
    return ResultEntry(index, "ok", value=value, codec=value_codec)


def _drive(coroutine: Any) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("only coroutines that wait for nothing can run here")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that has no event of its own."""
    async with asyncio.timeout(20):
        while not condition():      # noqa: ASYNC110 - what is waited for happens behind a socket
            await asyncio.sleep(0.005)


@dataclass
class FakeNode:
    service: FakeService
    port: HttpPort

    @property
    def url(self) -> str:
        return self.port.url

    @property
    def store(self) -> FakeStore:
        return self.service.store


@asynccontextmanager
async def fake_node(service: FakeService | None = None, *, port: int = 0) -> AsyncIterator[FakeNode]:
    """A fake node that listens."""
    service = service or FakeService()
    async with HttpPort(service, port=port, token=TOKEN, keyring=service.seal.keyring) as opened:
        yield FakeNode(service, opened)


@contextmanager
def fake_node_in_thread(service: FakeService | None = None) -> Iterator[FakeNode]:
    """A fake node on an event loop of its own, for tests of the sync client."""
    started: list[FakeNode] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with fake_node(service) as node:
            started.append(node)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
