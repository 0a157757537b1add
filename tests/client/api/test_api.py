"""`AsyncClient` against a fake node over a real socket: enqueue, coalescing, bulk, results."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from rota.client.api import coalesce
from rota.client.api.clients import AsyncClient
from rota.client.api.coalesce import width
from rota.client.calls import pickling
from rota.client.calls.order import Route
from rota.client.errors import (
    InvalidJob,
    JobFailed,
    JobTooLarge,
    JobUnknown,
    NotSerializable,
    Overloaded,
    PartlyEnqueued,
    ResultInvalid,
    ResultTimeout,
    RotaError,
    UnknownTask,
)
from rota.client.ids import job_id, parse_job_id
from rota.client.model import BUNDLE_BYTES_MAX, Enqueue, ResultEntry, Results, Terms
from rota.client.tasks.named import NamedTask
from rota.client.tasks.task import registry
from rota.client.wire import codec
from rota.client.wire.keyring import Keyring

from ..fake_service import KEYRING, TOKEN, FakeNode, FakeService, fake_node, until
from ..sample_tasks import add, echo, fail, shout


@asynccontextmanager
async def cluster(service: FakeService | None = None, **options: Any) -> AsyncIterator[tuple[FakeNode, AsyncClient]]:
    async with fake_node(service) as node, AsyncClient(node.url, token=TOKEN, key=KEYRING, **options) as client:
        yield node, client


# -- enqueue


async def test_a_job_there_and_back() -> None:
    async with cluster() as (node, client):
        handle = await client.enqueue(add, 1, b=2)
        assert await handle == 3
        assert await handle.aresult(timeout=60) == 3
        view = await handle.astatus()
        assert (view.id, view.place, view.task) == (handle.id, "finished", add.name)
        (bundle,) = node.store.bundles.values()
        assert (bundle.task, bundle.queue, bundle.mode, bundle.count) == (add.name, "default", "sync", 1)


async def test_options_reach_the_node() -> None:
    async with cluster() as (node, client):
        await client.enqueue(shout.using(queue="slow", priority=-3, run_after=60, timeout=9, max_attempts=7), "hi")
        (bundle,) = node.store.bundles.values()
        assert (bundle.queue, bundle.priority, bundle.mode) == ("slow", -3, "async")
        assert 50 < bundle.delay_s <= 60        # less what it has waited in the client
        header, _ = codec.split_body(bundle.body)
        assert (header.options.timeout_s, header.options.max_attempts, header.queue) == (9.0, 7, "slow")


async def test_64_calls_in_flight_travel_together() -> None:
    async with cluster() as (node, client):
        handles = await asyncio.gather(*(client.enqueue(add, number) for number in range(64)))
        assert [bundle.count for bundle in node.store.bundles.values()] == [60, 4], "what every release can read"
        assert len(node.service.requests) == 1
        assert await asyncio.gather(*handles) == list(range(64))
        await asyncio.gather(*(client.enqueue(add, number) for number in range(64)))
        assert [bundle.count for bundle in node.store.bundles.values()][2:] == [64], "its node reads more"
        await asyncio.gather(*(client.enqueue(add.using(fair_key="k"), number) for number in range(64)))
        assert [bundle.count for bundle in node.store.bundles.values()][3:] == [60, 4], "what takes turns stays narrow"


async def test_what_comes_while_a_frame_is_out_goes_with_the_next() -> None:
    service = FakeService()
    async with cluster(service) as (node, client):
        service.hold = asyncio.Event()
        first = asyncio.create_task(client.enqueue(add, 0))
        await until(lambda: len(service.requests) == 1)
        others = [asyncio.create_task(client.enqueue(add, number)) for number in range(1, 200)]
        await asyncio.sleep(0.05)
        assert len(service.requests) == 1
        service.hold.set()
        handles = await asyncio.gather(first, *others)
        assert [len(request) for request in service.requests] == [1, 3]
        assert await asyncio.gather(*handles) == list(range(200))
        assert service.seen_revisions == [0, 101], "a client says what it has seen"
        assert [handle.id for handle in handles] == sorted(handle.id for handle in handles[:1]) + [
            job_id(bundle, index) for bundle, count in list(_counts(node))[1:] for index in range(count)
        ]


def _counts(node: FakeNode) -> Iterator[tuple[str, int]]:
    return ((bundle.bundle, bundle.count) for bundle in node.store.bundles.values())


async def test_only_equal_routes_share_a_bundle() -> None:
    async with cluster() as (node, client):
        routes = [add, add.using(queue="b"), add.using(priority=1), add.using(run_after=1), add.using(timeout=1), echo]
        await asyncio.gather(*(client.enqueue(task, number) for number in range(5) for task in routes))
        assert [bundle.count for bundle in node.store.bundles.values()] == [5] * len(routes)
        assert len(node.service.requests) == 1


async def test_bundles_stay_below_their_byte_limit() -> None:
    async with cluster() as (node, client):
        blob = bytes(BUNDLE_BYTES_MAX // 3)
        await asyncio.gather(*(client.enqueue(echo, blob) for _ in range(20)))
        assert [bundle.count for bundle in node.store.bundles.values()] == [2] * 10
        assert len(node.service.requests) > 1, "frames have a limit of their own"
        await client.enqueue(echo, bytes(BUNDLE_BYTES_MAX - 100))
        with pytest.raises(JobTooLarge):
            await client.enqueue(echo, bytes(BUNDLE_BYTES_MAX))
        assert node.store.jobs == 21


async def test_a_refused_bundle_does_not_take_others_along() -> None:
    @asynccontextmanager
    async def unknown() -> AsyncIterator[Any]:
        from rota.client.tasks.task import make_task

        yield make_task(echo.function, name="nobody:knows")

    async with cluster() as (_, client), unknown() as task:
        good, bad = await asyncio.gather(
            client.enqueue(add, 1), client.enqueue(task, 1), return_exceptions=True
        )
        assert isinstance(bad, UnknownTask) and not isinstance(good, BaseException)
        assert await good == 1


async def test_one_who_gives_up_does_not_take_others_along() -> None:
    service = FakeService()
    async with cluster(service) as (_, client):
        service.hold = asyncio.Event()
        tasks = [asyncio.create_task(client.enqueue(add, number)) for number in range(3)]
        await until(lambda: bool(service.requests))
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        service.hold.set()
        assert [await (await tasks[0]), await (await tasks[2])] == [0, 2]


async def test_a_client_that_is_far_behind_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalesce, "JOBS_WAITING_MAX", 10)
    async with cluster() as (_, client):
        answers = await asyncio.gather(*(client.enqueue(add, n) for n in range(12)), return_exceptions=True)
        assert [type(answer) for answer in answers[10:]] == [Overloaded] * 2
        assert not any(isinstance(answer, BaseException) for answer in answers[:10])


async def test_bad_input_is_refused_before_anything_is_sent() -> None:
    async with cluster() as (node, client):
        refusals: list[tuple[type[Exception], Any, tuple[Any, ...], dict[str, Any]]] = [
            (InvalidJob, add, (), {}),
            (InvalidJob, add, (1,), {"c": 2}),
            (InvalidJob, "not a valid task name", (1,), {}),
            (InvalidJob, 7, (), {}),
            (NotSerializable, echo, (threading.Lock(),), {}),
            (JobTooLarge, echo, (), {"x": bytes(BUNDLE_BYTES_MAX)}),
        ]
        for error, task, args, kwargs in refusals:
            with pytest.raises(error):
                await client.enqueue(task, *args, **kwargs)
        assert node.service.requests == []


# -- names and values


async def test_a_task_by_its_name() -> None:
    async with cluster() as (node, client):
        assert await (await client.enqueue(add.name, 1, 2)) == 3
        named = NamedTask(shout.name).using(queue="q")
        for _ in range(3):
            assert await (await client.enqueue(named, "hi")) == "HI!"
        assert {bundle.mode for bundle in node.store.bundles.values() if bundle.queue == "q"} == {"async"}
        with pytest.raises(UnknownTask, match=r"no node has ever registered 'nowhere:task'.*--app"):
            await client.enqueue("nowhere:task")
        assert len(await client.enqueue_many(named, [("a",), ("b",)])) == 2


async def test_functions_by_value_are_put_once() -> None:
    async with cluster() as (node, client):
        factor = 3

        def times(x: int) -> int:
            return x * factor

        handles = [await client.enqueue(times, number) for number in range(5)]
        assert await asyncio.gather(*handles) == [0, 3, 6, 9, 12]
        assert node.service.puts == 1
        factor = 4
        assert await (await client.enqueue(times, 2)) == 8
        assert node.service.puts == 2
        assert await asyncio.gather(*await client.enqueue_many(times, [(1,), (2,)])) == [4, 8]
        assert await (await client.enqueue(lambda: "lambda")) == "lambda"
        (bundle, *_) = node.store.bundles.values()
        assert bundle.python == codec.PYTHON and bundle.task.endswith("<locals>.times")


async def test_cloudpickled_arguments_are_bound_to_this_python() -> None:
    async with cluster() as (node, client):
        await client.enqueue(echo, lambda: 1)
        await client.enqueue(echo, 1)
        assert [bundle.python for bundle in node.store.bundles.values()] == [codec.PYTHON, ""]


# -- many


async def test_enqueue_many() -> None:
    async with cluster() as (node, client):
        handles = await client.enqueue_many(add, ((number, 1) for number in range(2_000)))
        assert len(handles) == 2_000
        counts = [bundle.count for bundle in node.store.bundles.values()]
        assert counts[:17] == [60] * 17 and counts[17:-1] == sorted(counts[17:-1]) and 100 < max(counts) < 125
        assert {len(request) for request in node.service.requests} <= {16, 13}
        assert await asyncio.gather(*handles[-3:]) == [1998, 1999, 2000]
        assert handles[61].id == job_id(list(node.store.bundles)[1], 1) == handles.ids[61]
        assert handles[-1] == list(handles)[-1] and handles[10:12] == [handles[10], handles[11]]
        with pytest.raises(IndexError):
            handles[2_000]
        assert len(set(handles)) == 2_000


async def test_enqueue_many_of_nothing() -> None:
    async with cluster() as (node, client):
        handles = await client.enqueue_many(add, [])
        assert len(handles) == 0 and list(handles) == [] and node.service.requests == []


async def test_enqueue_many_takes_calls() -> None:
    async with cluster() as (_, client):
        handles = await client.enqueue_many(shout, [shout.call("a"), shout.call("b", marks=2), ("c",)])
        assert await asyncio.gather(*handles) == ["A!", "B!!", "C!"]


async def test_enqueue_many_keeps_to_the_byte_limits() -> None:
    async with cluster() as (node, client):
        await client.enqueue_many(echo, [(bytes(100_000),) for _ in range(50)])
        assert [bundle.count for bundle in node.store.bundles.values()] == [2] * 25
        assert all(sum(len(b.body) for b in request) <= 1024 * 1024 for request in node.service.requests)


@pytest.mark.parametrize(("wrong", "error"), [
    ((), InvalidJob), (7, InvalidJob), ([1], InvalidJob), ((threading.Lock(),), NotSerializable),
    ((bytes(BUNDLE_BYTES_MAX),), JobTooLarge),
])  # fmt: skip
async def test_a_wrong_call_among_many(wrong: Any, error: type[Exception]) -> None:
    async with cluster() as (node, client):
        with pytest.raises(error) as caught:
            await client.enqueue_many(add, [(1,), (2,), wrong, (4,)])
        assert caught.value.__notes__ == ["call 3 of enqueue_many"]
        assert node.store.jobs == 0
        with pytest.raises(PartlyEnqueued, match=r"960 jobs are stored, then came") as partly:
            await client.enqueue_many(add, [(1,)] * 1_000 + [wrong])
        assert isinstance(partly.value.cause, error) and partly.value.__cause__ is partly.value.cause
        stored = node.store.bundles.values()
        assert partly.value.job_ids == [job_id(order.bundle, index) for order in stored for index in range(order.count)]


async def test_a_refusal_among_many() -> None:
    service = FakeService()
    async with cluster(service) as (node, client):
        service.refusals = [InvalidJob("not this one")]
        with pytest.raises(PartlyEnqueued, match="900 jobs are stored, then came InvalidJob: not this one"):
            await client.enqueue_many(add, [(1,)] * 960)
        assert node.store.jobs == 900
        service.refusals = [InvalidJob("none")] * 100
        with pytest.raises(InvalidJob, match="none"):
            await client.enqueue_many(add, [(1,)] * 100)


async def test_calls_that_raise_while_they_are_made() -> None:
    def calls() -> Iterator[tuple[int]]:
        yield (1,)
        raise KeyError("from the generator")

    async with cluster() as (_, client):
        with pytest.raises(KeyError, match="from the generator"):
            await client.enqueue_many(add, calls())


# -- results


async def test_nothing_is_followed_that_nobody_waits_for() -> None:
    async with cluster() as (node, client):
        handles = [await client.enqueue(add, number) for number in range(20)]
        assert node.service.follow_calls == []
        assert await asyncio.gather(*handles) == list(range(20))
        assert [len(bundles) for bundles in node.service.follow_calls] == [20], "they are asked for together"
        await until(lambda: not any(node.store.followers.values()))
        assert await asyncio.gather(*handles) == list(range(20))
        assert len(node.service.follow_calls) == 1, "and remembered"


async def test_waiting_before_the_result_is_there() -> None:
    service = FakeService()
    service.run = False
    async with cluster(service) as (node, client):
        handle = await client.enqueue(add, 1)
        waiting = [asyncio.create_task(handle.aresult(timeout=60)) for _ in range(3)]
        await until(lambda: bool(node.store.followers))
        service.run_all()
        assert await asyncio.gather(*waiting) == [1, 1, 1]


async def test_another_client_waits_by_id() -> None:
    async with cluster() as (node, client), AsyncClient(node.url, token=TOKEN, key=KEYRING) as other:
        handle = await client.enqueue(add, 1)
        assert await other.handle(handle.id) == 1


async def test_a_failed_job() -> None:
    async with cluster() as (_, client):
        handle = await client.enqueue(fail, "the reason")
        with pytest.raises(JobFailed, match=r"failed after 1 attempt.*ValueError: the reason") as caught:
            await handle
        assert caught.value.error == "ValueError: the reason" and 'raise ValueError(message)' in caught.value.traceback
        assert caught.value.job_id == handle.id
        assert type(caught.value) is JobFailed and caught.value.__cause__ is None, "never rebuilt as a class"


async def test_a_result_that_does_not_come_in_time() -> None:
    service = FakeService()
    service.run = False
    async with cluster(service) as (node, client):
        handle = await client.enqueue(add, 1)
        with pytest.raises(ResultTimeout, match=r"within 0\.05 s: it is waiting") as caught:
            await handle.aresult(timeout=0.05)
        assert isinstance(caught.value, TimeoutError) and caught.value.job_id == handle.id
        await until(lambda: not any(node.store.followers.values()))
        service.run_all()
        assert await handle == 1


async def test_a_job_that_left_no_trace() -> None:
    async with cluster() as (_, client):
        good = await client.enqueue(add, 1)
        lost = client.handle("zzzzzzzzzzzz_00000001_0")
        found, missing = await asyncio.gather(
            client.handle(good.id), client.handle(f"{good.id[:13]}00000099_0"), return_exceptions=True
        )
        assert found == 1 and isinstance(missing, JobUnknown)
        with pytest.raises(JobUnknown, match="no trace of zzzzzzzzzzzz-00000001"):
            await lost
        with pytest.raises(JobUnknown):
            await lost.astatus()
        for wrong in ("", "x", "k3f9q2m7xa5t_0000001f_", "k3f9q2m7xa5t_0000001f_9999", "../x"):
            with pytest.raises(ValueError, match="is not a valid job id"):
                client.handle(wrong)


class Bomb:
    went_off = False

    def __reduce__(self) -> Any:
        return _go_off, ()


def _go_off() -> None:
    Bomb.went_off = True


@pytest.mark.parametrize("forge", [
    lambda results: codec.encode_results(results),
    lambda results: codec.encode_results(Keyring({"k1": bytes(32)}).sign_results(results, "test")),
    lambda results: codec.encode_results(KEYRING.sign_results(results, "another cluster")),
    lambda results: codec.encode_results(
        KEYRING.sign_results(msgspec.structs.replace(results, bundle="zzzzzzzzzzzz-00000001"), "test")
    ),
    lambda results: b"garbage",
])  # fmt: skip
async def test_a_forged_result_is_never_unpickled(forge: Any) -> None:
    service = FakeService()
    service.run = False
    async with cluster(service) as (node, client):
        handle = await client.enqueue(add, 1)
        bundle = parse_job_id(handle.id)[0]
        value, _ = pickling.dump_value(Bomb())
        node.store.results[bundle] = forge(Results(bundle, [ResultEntry(0, "ok", value=value)]))
        with pytest.raises(ResultInvalid):
            await handle.aresult(timeout=60)
        assert not Bomb.went_off


async def test_results_of_large_and_many_jobs() -> None:
    async with cluster() as (_, client):
        handles = await client.enqueue_many(echo, [(bytes([n]) * 10_000,) for n in range(200)])
        results: list[Any] = await asyncio.gather(*handles)
        assert [result[0][0][0] for result in results] == list(range(200))


# -- the client itself


async def test_a_client_belongs_to_one_loop() -> None:
    async with cluster() as (_, client):
        handle = await client.enqueue(add, 1)

        def elsewhere() -> None:
            asyncio.run(client.enqueue(add, 1))  # type: ignore[arg-type]

        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            await asyncio.to_thread(elsewhere)
        with pytest.raises(RuntimeError, match="would block the event loop"):
            handle.result()
        assert await asyncio.to_thread(handle.result, 5) == 1, "but another thread may wait"
        assert (await asyncio.to_thread(handle.status)).place == "finished"


async def test_closing_waits_for_what_is_on_its_way() -> None:
    service = FakeService()
    async with fake_node(service) as node:
        client = AsyncClient(node.url, token=TOKEN, key=KEYRING)
        service.hold = asyncio.Event()
        waiting = asyncio.create_task(client.enqueue(add, 1))
        await until(lambda: bool(service.requests))
        closing = asyncio.create_task(client.aclose())
        await asyncio.sleep(0.05)
        service.hold.set()
        await closing
        assert (await waiting).id
        await client.aclose()
        assert (await client.enqueue(add, 2)).id, "used again, it connects again"
        await client.aclose()


async def test_closing_ends_the_waiting_for_results() -> None:
    service = FakeService()
    service.run = False
    async with cluster(service) as (node, client):
        handle = await client.enqueue(add, 1)
        waiting = asyncio.create_task(handle.aresult())
        await until(lambda: any(node.store.followers.values()))
        await client.aclose()
        with pytest.raises(RotaError, match="the client was closed"):
            await waiting


async def test_waiting_again_for_what_was_just_left() -> None:
    """A result that comes between giving up and asking again is not lost."""
    service = FakeService()
    service.run = False
    async with cluster(service) as (node, client):
        handle = await client.enqueue(add, 1)
        for turns in range(12):
            waiting = asyncio.create_task(handle.aresult(timeout=60))
            await until(lambda: any(node.store.followers.values()))
            waiting.cancel()
            for _ in range(turns):
                await asyncio.sleep(0)
            if turns == 11:
                service.run_all()
        assert await handle.aresult(timeout=60) == 1


async def test_a_handle_says_how_to_pass_it_on() -> None:
    async with cluster() as (_, client):
        handle = await client.enqueue(add, 1)
        with pytest.raises(TypeError, match=r"pass handle\.id"):
            pickle.dumps(handle)


async def test_pages() -> None:
    async with cluster() as (_, client):
        await client.enqueue(add, 1)
        assert [node.node for node in await client.nodes()] == ["n1"]
        assert [(queue.queue, queue.waiting) for queue in await client.queues()] == [("default", 1)]
        assert [view.queue for view in await client.failed("some.queue")] == ["some.queue"]
        assert await client.failed(limit=0) == []
        assert (await client.stats()).master == "n1"


async def test_without_keys_on_either_end() -> None:
    unsigned = Keyring({})
    async with fake_node(FakeService(unsigned)) as node, AsyncClient(node.url, token=TOKEN) as client:
        assert await (await client.enqueue(add, 1)) == 1
        (bundle,) = node.store.bundles.values()
        assert isinstance(bundle, Enqueue) and codec.split_body(bundle.body)[0].tags == b""


async def test_every_task_here_is_registered() -> None:
    assert {add.name, echo.name, fail.name, shout.name} <= set(registry)


@pytest.mark.parametrize(("sent", "most", "wide"), [
    (0, 480, 60), (960, 480, 60), (1_600, 480, 100), (10**6, 480, 480), (10**6, 60, 60), (10**6, 200, 200),
    (10**6, 10**6, 480), (10**6, 0, 60),
])
def test_bundles_grow_with_what_a_call_has_sent_as_far_as_the_node_takes_them(sent: int, most: int, wide: int) -> None:
    route = Route("m:f", "q", "sync")
    assert width(route, sent, most) == wide
    assert width(route._replace(idempotency="k"), sent, most) == 1
    for narrow in ({"key": "k"}, {"terms": Terms(fair_key="k")}, {"terms": Terms(rate_key="k")}):
        assert width(route._replace(**narrow), sent, most) == 60  # type: ignore[arg-type]
