"""The HTTP port: JSON for any language, who may come in, and what a client cannot do to it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from rota.client.api.clients import AsyncClient
from rota.client.errors import (
    ConfigError,
    EnqueueError,
    EnqueueUnknown,
    InvalidJob,
    Overloaded,
    RotaError,
    WriteUnknown,
)
from rota.client.model import Enqueue, Header
from rota.client.tasks.named import NamedTask
from rota.client.wire import frames as wire
from rota.client.wire.codec import split_body
from rota.client.wire.keyring import UNSIGNED, Keyring, Seal
from rota.cluster.port import answers, gate, happenings, websocket
from rota.cluster.port.http import HttpPort

from ...client.fake_service import KEYRING, TOKEN, FakeNode, FakeService, TellingService, fake_node, until
from ...client.sample_tasks import add, echo, fail, shout

BEARER = {"Authorization": f"Bearer {TOKEN}"}
JOB = {"task": add.name, "args": [1], "kwargs": {"b": 2}}


class Web:
    """A client in some other language."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self.session.get(self.url + path, headers=headers) as response:
            return response.status, await response.json()

    async def post(self, job: Any, **headers: str) -> tuple[int, Any]:
        body = io.BytesIO(job if isinstance(job, bytes) else json.dumps(job).encode())
        async with self.session.post(self.url + "/v1/jobs", data=body, headers=headers) as response:
            return response.status, await response.json()


@asynccontextmanager
async def served(service: FakeService | None = None, token: str | None = TOKEN) -> AsyncIterator[tuple[FakeNode, Web]]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with fake_node(service) as node, aiohttp.ClientSession(headers=headers) as session:
        yield node, Web(session, node.url)


# -- jobs in JSON


async def test_enqueue_and_result() -> None:
    async with served() as (node, web):
        status, page = await web.post(JOB)
        assert status == 201 and page["level"] == "durable"
        assert await web.get(f"/v1/jobs/{page['id']}?wait=10") == (
            200, {"id": page["id"], "status": "ok", "attempts": 1, "codec": "json", "value": 3},
        )  # fmt: skip
        status, view = await web.get(f"/v1/jobs/{page['id']}")
        assert (status, view["place"], view["task"]) == (200, "finished", add.name)
        (bundle,) = node.store.bundles.values()
        header, payloads = KEYRING.verify(bundle.body, "test")
        assert (header.codec, header.python, json.loads(payloads[0])) == ("json", "", {"args": [1], "kwargs": {"b": 2}})


async def test_options() -> None:
    async with served() as (node, web):
        await web.post({"task": shout.name, "args": ["hi"], "queue": "slow", "priority": 9, "delay_s": 3})
        (bundle,) = node.store.bundles.values()
        assert (bundle.queue, bundle.priority, bundle.delay_s, bundle.mode) == ("slow", 9, 3.0, "async")


async def test_json_arrives_exactly() -> None:
    text = "gr\u00fc\u00df \U0001f642 \u2028"
    value: Any = {"text": text, "big": 10**40, "float": 1.0, "deep": [[[None, True, 1.5]]], "": {}}
    async with served() as (_, web):
        _, page = await web.post({"task": echo.name, "args": [value], "kwargs": {"k": value}})
        assert (await web.get(f"/v1/jobs/{page['id']}?wait=10"))[1]["value"] == [[value], {"k": value}]


async def test_a_failed_job() -> None:
    async with served() as (_, web):
        _, page = await web.post({"task": fail.name, "args": ["<script>"]})
        status, result = await web.get(f"/v1/jobs/{page['id']}?wait=10")
        assert (status, result["status"], result["error"]) == (200, "failed", "ValueError: <script>")
        assert "raise ValueError" in result["traceback"]


async def test_a_result_that_only_python_reads() -> None:
    async with served() as (node, web), AsyncClient(node.url, token=TOKEN, key=KEYRING) as client:
        handle = await client.enqueue(echo, {1, 2})
        status, result = await web.get(f"/v1/jobs/{handle.id}?wait=10")
        assert (status, result["value"], result["codec"]) == (200, None, "pickle") and "pickled" in result["note"]


async def test_waiting_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    service = FakeService()
    service.run = False
    async with served(service) as (node, web):
        _, page = await web.post(JOB)
        status, view = await web.get(f"/v1/jobs/{page['id']}?wait=0.05")
        assert (status, view["place"]) == (202, "waiting")
        monkeypatch.setattr(answers, "WAIT_S_MAX", 0.05)
        assert (await web.get(f"/v1/jobs/{page['id']}?wait=9999"))[0] == 202
        assert not any(node.store.followers.values()), "nothing is followed any longer"


async def test_an_idempotency_key_stores_once() -> None:
    async with served() as (node, web):
        answers = await asyncio.gather(*(web.post(JOB, **{"Idempotency-Key": "order 7"}) for _ in range(10)))
        assert {status for status, _ in answers} == {201}
        assert len({page["id"] for _, page in answers}) == node.store.jobs == 1
        await until(lambda: node.store.runs == 1)
        assert await web.post(JOB, **{"Idempotency-Key": "order 7"}) == answers[0], "also after it has finished"
        _, other = await web.post(JOB, **{"Idempotency-Key": "order 8"})
        assert other["id"] != answers[0][1]["id"]
        status, page = await web.post({**JOB, "args": [2]}, **{"Idempotency-Key": "order 7"})
        assert (status, page["error"]) == (400, "InvalidJob"), "the same key for another job"
    async with fake_node(FakeService(cluster="other")) as node, aiohttp.ClientSession(headers=BEARER) as session:
        _, page = await Web(session, node.url).post(JOB, **{"Idempotency-Key": "order 7"})
        assert page["id"] != answers[0][1]["id"], "a key means nothing to another cluster"


@pytest.mark.parametrize(("job", "status", "error"), [
    (b"", 400, "InvalidJob"),
    (b"not json", 400, "InvalidJob"),
    (b"\xff\xfe", 400, "InvalidJob"),
    (b"[]", 400, "InvalidJob"),
    ({}, 400, "InvalidJob"),
    (b'{"task": "m:f", "args": [nope]}', 400, "InvalidJob"),
    (b'{"task": "m:f", "args": [1}', 400, "InvalidJob"),
    (b'{"task": "m:f", "args": [1]} {}', 400, "InvalidJob"),
    (b'{"task": "m:f", "args": ["\\q"]}', 400, "InvalidJob"),
    (b'{"task": "m:f", "args": ["\xff"]}', 400, "InvalidJob"),
    (b'{"task": "m:f", "args": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "InvalidJob"),
    ({"task": 7}, 400, "InvalidJob"),
    ({**JOB, "args": {}}, 400, "InvalidJob"),
    ({**JOB, "kwargs": []}, 400, "InvalidJob"),
    ({**JOB, "pirority": 1}, 400, "InvalidJob"),
    ({**JOB, "queue": "a/b"}, 400, "InvalidJob"),
    ({**JOB, "queue": ""}, 400, "InvalidJob"),
    ({**JOB, "priority": 1000}, 400, "InvalidJob"),
    ({**JOB, "priority": "high"}, 400, "InvalidJob"),
    ({**JOB, "delay_s": -1}, 400, "InvalidJob"),
    ({**JOB, "delay_s": 1e300}, 400, "InvalidJob"),
    ({"task": "nobody:knows"}, 404, "UnknownTask"),
    ({"task": "x" * 10_000}, 404, "UnknownTask"),
    ({**JOB, "args": ["x" * 300_000]}, 413, "JobTooLarge"),
    ({**JOB, "args": ["x" * 5_000_000]}, 413, "JobTooLarge"),
])  # fmt: skip
async def test_bad_jobs(job: Any, status: int, error: str) -> None:
    async with served() as (node, web):
        got, page = await web.post(job)
        assert (got, page["error"]) == (status, error) and page["message"] and "advice" in page
        assert node.store.jobs == 0 and node.service.requests == []


@pytest.mark.parametrize(("path", "status"), [
    ("/v1/jobs/x/0", 400),
    ("/v1/jobs/k3f9q2m7xa5t-0000001f/x", 400),
    ("/v1/jobs/k3f9q2m7xa5t_0000001f_0", 404),
    ("/v1/jobs/k3f9q2m7xa5t-0000001f/0", 404),              # as ids were written once
    ("/v1/jobs/k3f9q2m7xa5t", 400),
    ("/v1/jobs/k3f9q2m7xa5t_0000001f_0?wait=1", 404),
    ("/v1/jobs/k3f9q2m7xa5t_0000001f_0?wait=soon", 400),
    ("/v1/jobs/k3f9q2m7xa5t_0000001f_0?wait=-1", 400),
    ("/v1/jobs/k3f9q2m7xa5t_0000001f_0?wait=nan", 400),
    ("/v1/failed?limit=many", 400),
    ("/v1/failed?queue=../x", 400),
])
async def test_bad_questions(path: str, status: int) -> None:
    async with served() as (_, web):
        got, page = await web.get(path)
        assert got == status and set(page) == {"error", "message", "advice"}


@pytest.mark.parametrize(("error", "ready", "status", "name"), [
    (Overloaded("the store is full", 2.3), None, 429, "Overloaded"),
    (Overloaded("no identity", 1.0), "joining", 503, "Overloaded"),
    (EnqueueUnknown("k3f9q2m7xa5t-0000001f"), None, 504, "EnqueueUnknown"),
    (WriteUnknown("etcdserver: secret detail"), None, 503, "Unreachable"),
    (ZeroDivisionError("secret detail"), None, 500, "Internal"),
])
async def test_errors_of_the_node(error: Any, ready: str | None, status: int, name: str) -> None:
    service = FakeService()
    service.not_ready = ready
    async with served(service) as (_, web):
        for _ in range(2):
            service.faults = [error]
            async with web.session.post(web.url + "/v1/jobs", json=JOB) as response:
                page = await response.json()
                assert (response.status, page["error"]) == (status, name)
                assert "secret" not in page["message"]
                if name == "Overloaded":
                    assert int(response.headers["Retry-After"]) >= error.retry_after_s


# -- pages


async def test_pages() -> None:
    async with served() as (_, web):
        await web.post(JOB)
        assert (await web.get("/v1/nodes"))[1][0]["node"] == "n1"
        assert (await web.get("/v1/queues"))[1][0]["queue"] == "default"
        assert (await web.get("/v1/failed?queue=q&limit=5"))[1][0]["queue"] == "q"
        assert (await web.get("/v1/failed?limit=0"))[1] == []
        assert (await web.get("/v1/stats"))[1]["nodes"] == 1
        async with web.session.get(web.url + "/v1/stats") as response:
            assert response.headers["Content-Type"] == "application/json"
            assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_other_paths_and_methods() -> None:
    async with served() as (_, web):
        assert (await web.get("/nothing"))[0] == 404
        async with web.session.delete(web.url + "/v1/nodes") as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET,HEAD")
            assert (await response.json())["message"] == "DELETE /v1/nodes: Method Not Allowed"


async def test_health_is_open_and_says_little() -> None:
    async with served(token=None) as (node, web):
        assert await web.get("/livez") == (200, {"status": "ok"})
        assert await web.get("/readyz") == (200, {"status": "ok"})
        node.service.not_ready = "no runner has started yet"
        assert await web.get("/readyz") == (503, {"status": "not ready"})
        told = {"status": "not ready", "why": "no runner has started yet"}
        assert await web.get("/readyz", **BEARER) == (503, told)
        assert await web.get("/readyz", Authorization="Bearer wrong") == (503, {"status": "not ready"})


# -- who may come in


PATHS = ("/v1/nodes", "/v1/stats", "/v1/jobs/k3f9q2m7xa5t_0000001f_0", "/v1/ws", "/", "/nothing", "/livez/", "//livez")


@pytest.mark.parametrize("authorization", [
    None, "", "Bearer", "Bearer ", "Bearer wrong", f"bearer {TOKEN}", f"Bearer {TOKEN}x", TOKEN, f"Basic {TOKEN}",
    "Bearer \u00e9\u00e8",
])  # fmt: skip
async def test_without_the_token_nothing_is_said(authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    async with served(token=None) as (node, web):
        for path in PATHS:
            async with web.session.get(web.url + path, headers=headers) as response:
                assert response.status == 401, path
                assert response.headers["WWW-Authenticate"] == "Bearer"
        async with web.session.post(web.url + "/v1/jobs", data=b"\xff" * 1_000, headers=headers) as response:
            assert response.status == 401
        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            await web.session.ws_connect(web.url + "/v1/ws", headers=headers)
        assert node.service.requests == []


async def test_foreign_origins_are_refused() -> None:
    async with served() as (node, web):
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1", ""):
            assert (await web.get("/v1/stats", Origin=origin))[0] == 403
            assert (await web.post(JOB, Origin=origin))[0] == 403
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await web.session.ws_connect(web.url + "/v1/ws", headers={"Origin": origin})
        assert node.store.jobs == 0
        assert (await web.get("/v1/stats", Origin=node.url))[0] == 200


async def test_without_a_token_the_host_must_be_this_machine() -> None:
    async with HttpPort(FakeService(UNSIGNED)) as port, aiohttp.ClientSession() as session:
        web = Web(session, port.url)
        number = port.url.rsplit(":", 1)[1]
        foreign = ("evil.example", f"evil.example:{number}", "127.0.0.1.evil.example", "", "a@b", "[::1", "192.168.0.1")
        for host in foreign:
            assert (await web.get("/v1/stats", Host=host))[0] in (400, 403), host
        for host in ("localhost", f"localhost:{number}", f"127.0.0.1:{number}", "[::1]:80"):
            assert (await web.get("/v1/stats", Host=host))[0] == 200, host


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com"])
def test_off_loopback_credentials_are_needed(host: str) -> None:
    for token, keyring in ((None, KEYRING), ("", KEYRING), (TOKEN, UNSIGNED), (None, UNSIGNED)):
        with pytest.raises(ConfigError, match=r"whoever reaches the port could run code.*rota init"):
            HttpPort(FakeService(), host, token=token, keyring=keyring)
    HttpPort(FakeService(), host, token=TOKEN, keyring=KEYRING)


async def test_a_port_that_is_taken() -> None:
    async with fake_node() as node:
        number = int(node.url.rsplit(":", 1)[1])
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{number}"):
            async with HttpPort(FakeService(UNSIGNED), port=number):
                pass


async def test_by_default_it_listens_on_loopback_only() -> None:
    async with HttpPort(FakeService(UNSIGNED)) as port:
        listening = [listener.getsockname() for listener in port._gate._listeners]
        assert listening == [("127.0.0.1", int(port.url.removeprefix("http://127.0.0.1:")))]


async def test_leaving_twice_is_harmless() -> None:
    port = HttpPort(FakeService(UNSIGNED))
    async with port:
        pass
    await port.__aexit__(None, None, None)


# -- frames


def bundle(name: str, payload: bytes = b"x") -> Enqueue:
    header = Header(name, "tests.client.sample_tasks:echo", "default", "sync", [0], [len(payload)], 0.0)
    body = Seal(KEYRING, "test").body(header, [payload])
    return Enqueue(name, header.task, header.queue, 1, "sync", body)


@asynccontextmanager
async def frames(service: FakeService | None = None) -> AsyncIterator[tuple[FakeNode, aiohttp.ClientWebSocketResponse]]:
    async with served(service) as (node, web), web.session.ws_connect(web.url + "/v1/ws") as ws:
        hello = wire.decode_from_node(await ws.receive_bytes())
        assert isinstance(hello, wire.Hello)
        assert (hello.version, hello.cluster, hello.node, hello.key_ids) == (wire.PROTOCOL, "test", "n1", ["k1"])
        assert hello.limits == wire.Limits(jobs_per_bundle_max=480, header_schema_max=3)
        yield node, ws


async def test_another_version_of_the_protocol_is_told_so() -> None:
    async with served() as (_, web):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="426") as caught:
            await web.session.ws_connect(web.url + "/v1/ws", headers={wire.PROTOCOL_HEADER: "2"})
        assert caught.value.headers is not None and caught.value.headers[wire.PROTOCOL_HEADER] == "1"


@pytest.mark.parametrize("garbage", [
    b"", b"x", b"\xc1", b"\x91\x11", b"\x92\x01\x02", wire.encode(wire.Hello(1, "", "", [])),
])
async def test_garbage_ends_the_connection_and_nothing_else(garbage: bytes) -> None:
    async with frames() as (node, ws):
        await ws.send_bytes(garbage)
        message = await ws.receive(timeout=10)
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        async with AsyncClient(node.url, token=TOKEN, key=KEYRING) as client:
            assert await (await client.enqueue(add, 1)) == 1


async def test_text_frames_and_frames_over_the_limit_end_the_connection() -> None:
    for send in (lambda ws: ws.send_str("hello"), lambda ws: ws.send_bytes(bytes(wire.FRAME_BYTES_MAX + 1))):
        async with frames() as (node, ws):
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):      # it may end while we still send
                await send(ws)
            await until(lambda node=node: not node.port._sockets)  # type: ignore[misc]


async def test_a_frame_holds_verdicts_for_each_bundle() -> None:
    service = FakeService()
    async with frames(service) as (_, ws):
        service.refusals = [InvalidJob("the first")]
        names = [f"k3f9q2m7xa5t-0000000{n}" for n in range(3)]
        await ws.send_bytes(wire.encode(wire.EnqueueRequest(7, 0, [bundle(name) for name in names])))
        reply = wire.decode_from_node(await ws.receive_bytes())
        assert isinstance(reply, wire.EnqueueReply) and reply.corr == 7
        assert [receipt and receipt.bundle for receipt in reply.receipts] == [None, *names[1:]]
        assert reply.refusals == {0: wire.Refusal("InvalidJob", "the first")}


async def test_requests_are_worked_on_side_by_side_up_to_a_limit() -> None:
    service = FakeService()
    service.hold = asyncio.Event()
    async with frames(service) as (_, ws):
        for number in range(wire.IN_FLIGHT_MAX + 30):
            await ws.send_bytes(wire.encode(wire.EnqueueRequest(number, 0, [bundle(f"k3f9q2m7xa5t-{number:08x}")])))
        await until(lambda: len(service.requests) == wire.IN_FLIGHT_MAX)
        await asyncio.sleep(0.05)
        assert len(service.requests) == wire.IN_FLIGHT_MAX
        service.hold.set()
        replies = [wire.decode_from_node(await ws.receive_bytes()) for _ in range(wire.IN_FLIGHT_MAX + 30)]
        assert sorted(reply.corr for reply in replies) == list(range(wire.IN_FLIGHT_MAX + 30))  # type: ignore[union-attr]


async def test_what_is_on_its_way_is_finished_when_the_client_goes() -> None:
    class Slow(FakeService):
        finished = 0

        async def enqueue(self, bundles, seen_revision):  # type: ignore[no-untyped-def]
            answers = await super().enqueue(bundles, seen_revision)
            Slow.finished += 1
            return answers

    service = Slow()
    service.hold = asyncio.Event()
    async with frames(service) as (node, ws):
        await ws.send_bytes(wire.encode(wire.EnqueueRequest(1, 0, [bundle("k3f9q2m7xa5t-00000001")])))
        await until(lambda: bool(service.requests))
        await ws.close()
        service.hold.set()
        await until(lambda: Slow.finished == 1 and not node.port._sockets)


async def test_following() -> None:
    service = FakeService()
    service.run = False
    async with frames(service) as (node, ws):
        names = [f"k3f9q2m7xa5t-0000000{n}" for n in range(3)]
        await service.enqueue([bundle(name) for name in names], 0)
        wanted = [*names, "k3f9q2m7xa5t-00000099", names[0]]
        await ws.send_bytes(wire.encode(wire.FollowRequest(1, "k3f9q2m7xa5t", wanted)))
        assert wire.decode_from_node(await ws.receive_bytes()) == wire.Done(1, ["k3f9q2m7xa5t-00000099"])
        await ws.send_bytes(wire.encode(wire.Unfollow([names[2], "k3f9q2m7xa5t-00000098"])))
        await until(lambda: not node.store.followers[names[2]])
        service.run_all()
        pushed = wire.decode_from_node(await ws.receive_bytes())
        assert isinstance(pushed, wire.ResultPush) and [name for name, _ in pushed.results] == names[:2]
        assert not split_body(bundle(names[0]).body)[0].python
        await ws.close()
        await until(lambda: not any(node.store.followers.values()))


async def test_a_client_that_does_not_take_its_results_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "PUSHED_BYTES_MAX", 1_000_000)
    service = FakeService()
    async with frames(service) as (node, _):
        (sock,) = node.port._sockets
        for _ in range(2_000):
            sock._push("k3f9q2m7xa5t-00000001", bytes(10_000))
        await until(lambda: not node.port._sockets)


async def test_a_client_that_takes_no_answers_cannot_ask_on() -> None:
    service = FakeService()
    async with frames(service) as (node, ws):
        (sock,) = node.port._sockets
        stuck = asyncio.Event()

        async def never(_frame: bytes) -> None:
            await stuck.wait()

        sock._ws.send_bytes = never  # type: ignore[assignment, method-assign]
        for number in range(wire.IN_FLIGHT_MAX + 30):
            await ws.send_bytes(wire.encode(wire.EnqueueRequest(number, 0, [bundle(f"k3f9q2m7xa5t-{number:08x}")])))
        await until(lambda: len(service.requests) >= wire.IN_FLIGHT_MAX)
        await asyncio.sleep(0.05)
        assert len(service.requests) == wire.IN_FLIGHT_MAX
        stuck.set()


async def test_following_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "FOLLOWED_MAX", 2)
    async with frames() as (_, ws):
        names = [f"k3f9q2m7xa5t-0000000{n}" for n in range(3)]
        await ws.send_bytes(wire.encode(wire.FollowRequest(1, "k3f9q2m7xa5t", names)))
        reply = wire.decode_from_node(await ws.receive_bytes())
        assert isinstance(reply, wire.ErrorFrame) and reply.refusal.kind == "InvalidJob"


async def test_connections_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "TRUSTED_MAX", 1)
    async with frames() as (node, _), aiohttp.ClientSession(headers=BEARER) as session:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
            await session.ws_connect(node.url + "/v1/ws")


async def test_a_named_task_that_nobody_knows() -> None:
    async with served() as (node, _), AsyncClient(node.url, token=TOKEN, key=KEYRING) as client:
        with pytest.raises(EnqueueError, match="nobody:knows"):
            await client.enqueue(NamedTask("nobody:knows"))
    assert issubclass(EnqueueError, RotaError) and Keyring({"a": bytes(32)})


# -- jobs that are watched


async def test_events_of_a_job_are_pushed_until_it_is_over() -> None:
    service = TellingService()
    async with frames(service) as (node, ws):
        await ws.send_bytes(wire.encode(wire.WatchRequest(7, "a")))
        await ws.send_bytes(wire.encode(wire.WatchRequest(8, "nonsense")))
        refused = wire.decode_from_node(await ws.receive_bytes())
        assert isinstance(refused, wire.ErrorFrame) and (refused.corr, refused.refusal.kind) == (8, "InvalidJob")
        service.tell()
        service.tell(over=True)
        for number in (1, 2):
            pushed = wire.decode_from_node(await ws.receive_bytes())
            assert isinstance(pushed, wire.EventsPush) and pushed.corr == 7
            assert pushed.page.events[0].at == number and pushed.page.over == (number == 2)
        await ws.send_bytes(wire.encode(wire.WatchRequest(9, "a", "1")))
        again = wire.decode_from_node(await ws.receive_bytes())
        assert isinstance(again, wire.EventsPush) and again.page.next == "2"
        await until(lambda: node.port._streams._open == 0)


async def test_who_leaves_or_goes_is_watched_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(happenings, "STREAMS_MAX", 2)
    async with frames(TellingService()) as (node, ws):
        for corr in (1, 2, 3):
            await ws.send_bytes(wire.encode(wire.WatchRequest(corr, "a")))
        full = wire.decode_from_node(await ws.receive_bytes())
        assert isinstance(full, wire.ErrorFrame) and (full.corr, full.refusal.kind) == (3, "Overloaded")
        await ws.send_bytes(wire.encode(wire.Unwatch(1)))
        await until(lambda: node.port._streams._open == 1)
        await ws.close()
        await until(lambda: node.port._streams._open == 0)
