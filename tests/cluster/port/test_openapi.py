"""The description of the port: a valid one, of every route there is, and true of what the routes really answer."""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

import rota
import rota.testing
from rota.client.wire import frames as wire
from rota.cluster.port.http import HttpPort
from rota.cluster.port.seen import SeenPages
from rota.cluster.telemetry.telemetry import Telemetry

from ...client.fake_service import FakeService

PAGE = Path(__file__).parents[3] / "docs" / "http.md"


@rota.task(max_attempts=1)
def described_echo(text: str = "") -> str:
    rota.progress(1, 2, "half")
    return text


@rota.task(max_attempts=1, keep_finished=600, keep_log=5)
def described_failure() -> None:
    raise ValueError("so it goes")


class Asker:
    """Asks like a program, and compares each answer with the description. `seen` has what was answered how."""

    def __init__(self, session: aiohttp.ClientSession, description: dict[str, Any]) -> None:
        self._session = session
        self._paths = description["paths"]
        self._components = strict(description["components"])
        self.seen: set[tuple[str, str, str]] = set()

    async def get(self, path: str, status: int = 200, **headers: str) -> Any:
        return await self._ask("get", path, status, None, headers)

    async def post(self, path: str, body: Any = None, status: int = 200, **headers: str) -> Any:
        return await self._ask("post", path, status, body, headers)

    async def _ask(self, method: str, path: str, status: int, body: Any, headers: dict[str, str]) -> Any:
        template, told = self._told(method, path.partition("?")[0])
        if "requestBody" in told and status < 400:
            self._check(body, told["requestBody"]["content"]["application/json"]["schema"])
        async with self._session.request(method, path, json=body, headers=headers) as answer:
            text = await (answer.content.readline() if answer.content_type == "text/event-stream" else answer.read())
            assert answer.status == status, text
            self.seen.add((template, method, str(answer.status)))
            (content,) = [
                shape for kind, shape in told["responses"][str(status)]["content"].items()
                if kind == answer.content_type
            ]
            if answer.content_type != "application/json":
                return text
            page = await answer.json()
        self._check(page, content["schema"])
        return page

    def _told(self, method: str, path: str) -> tuple[str, dict[str, Any]]:
        """The description of a path: as it stands, before one with parameters."""
        for template in sorted(self._paths, key=lambda template: template.count("{")):
            if re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path) and method in self._paths[template]:
                return template, self._paths[template][method]
        raise AssertionError(f"{method} {path} is not described")

    def _check(self, value: Any, schema: dict[str, Any]) -> None:
        Draft202012Validator({**schema, "components": self._components}).validate(value)


def strict(components: dict[str, Any]) -> dict[str, Any]:
    """Objects have the fields that are described, and no other."""
    found = copy.deepcopy(components)
    for schema in found["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[rota.testing.MemoryCluster]:
    with rota.testing.MemoryCluster() as cluster:
        yield cluster


@asynccontextmanager
async def asker(cluster: rota.testing.MemoryCluster) -> AsyncIterator[Asker]:
    headers = {"Authorization": f"Bearer {cluster.token}"}
    async with aiohttp.ClientSession(cluster.url, headers=headers) as session:
        async with session.get("/v1/openapi.json") as answer:
            description = await answer.json()
        yield Asker(session, description)


async def test_it_is_a_valid_description(cluster: rota.testing.MemoryCluster) -> None:
    headers = {"Authorization": f"Bearer {cluster.token}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(cluster.url + "/v1/openapi.json") as it:
        description = await it.json()
    OpenAPIV31SpecValidator(description).validate()
    ids = [told["operationId"] for methods in description["paths"].values() for told in methods.values()]
    assert len(ids) == len(set(ids))


async def test_every_route_is_described_and_every_described_route_is_there(
    cluster: rota.testing.MemoryCluster,
) -> None:
    class Silent:
        async def overview(self) -> None: ...

    async with HttpPort(FakeService(), sites=[SeenPages(cast(Telemetry, Silent()))]) as port:
        assert port._runner is not None
        served = {
            (route.method.lower(), resource.canonical)
            for route in port._runner.app.router.routes()
            if route.method != "HEAD" and (resource := route.resource) is not None
        }
    async with asker(cluster) as ask:
        described = {(method, path) for path, methods in ask._paths.items() for method in methods}
    assert served == described


async def test_the_page_names_the_same_routes(cluster: rota.testing.MemoryCluster) -> None:
    names = {"NAME": "{schedule}", "{name}": "{queue}", "operations/{id}": "operations/{operation}"}
    page = PAGE.read_text()
    for ours, theirs in names.items():
        page = page.replace(ours, theirs)
    rows = "\n".join(re.findall(r"^\| (`(?:GET|POST) .*?) \|", page, re.MULTILINE))
    named = {(method.lower(), path) for method, path in re.findall(r"`(GET|POST) ([^`?]+)", rows)}
    async with asker(cluster) as ask:
        described = {
            (method, path) for path, methods in ask._paths.items() for method, told in methods.items()
            if not told.get("deprecated")
        }
    assert named == described - {("get", wire.PATH)}


async def test_answers_are_as_described(cluster: rota.testing.MemoryCluster) -> None:
    """Each route is asked for something that is there, and for something that is not."""
    async with asker(cluster) as ask:
        echo, failure = described_echo.name, described_failure.name
        job = await ask.post("/v1/jobs", {"task": echo, "args": ["x"], "unique_key": "k", "headers": {"a": "b"}}, 201)
        later = await ask.post("/v1/jobs", {"task": echo, "delay_s": 300, "unique_key": "later"}, 201)
        again = await ask.post("/v1/jobs", {"task": echo, "unique_key": "later"}, 200)
        assert again["existing"] and again["id"] == later["id"]
        await ask.post("/v1/jobs", {"task": echo, "unique_key": "later", "on_conflict": "raise"}, 409)
        await ask.post("/v1/jobs", {"task": "no:task"}, 404)
        await ask.post("/v1/jobs", {"task": echo, "priority": 1_000}, 400)
        await ask.post("/v1/jobs", {"task": echo, "args": ["x" * 300_000]}, 413)
        assert (await ask.get(f"/v1/jobs/{job['id']}?wait=10"))["value"] == "x"
        failed = await ask.post("/v1/jobs", {"task": failure}, 201)
        assert (await ask.get(f"/v1/jobs/{failed['id']}?wait=10"))["status"] == "failed"
        parts = later["id"].rpartition("_")[0].replace("_", "-")
        paths = (f"/v1/jobs/{later['id']}", f"/v1/jobs/{parts}/0")
        for path in paths:
            await ask.get(path)
            await ask.get(f"{path}?wait=0", 202)
            await ask.get(f"{path}/events")
            await ask.get(f"{path}/events", 200, Accept="text/event-stream")
            await ask.get(f"{path}/log")
            assert await ask.get(f"{path}/body")
        for path in paths:
            await ask.post(f"{path}/cancel")
        await ask.get("/v1/jobs/k3f9q2m7xa5t_0000001f_0?wait=0", 404)
        await ask.get("/v1/jobs/nonsense", 400)
        for path in (
            "/v1/jobs", "/v1/jobs?place=failed&limit=1", "/v1/tasks", "/v1/nodes", "/v1/queues", "/v1/failed",
            "/v1/finished", "/v1/stats", "/v1/overview", "/v1/history?limit=5", "/v1/operations", "/livez", "/readyz",
            "/metrics", "/v1/openapi.json", "/v1/events?jobs=1", "/v1/queues?limit=1",
        ):
            await ask.get(path)
        await ask.get("/v1/jobs?limit=many", 400)
        await ask.get("/v1/history?limit=0", 400)

        settings = await ask.post("/v1/queues/default", {"paused": True, "rate": "100/minute", "max_concurrency": 5})
        assert settings["paused"]
        await ask.post("/v1/queues/default", {"paused": False, "rate": None, "max_concurrency": None})
        await ask.post("/v1/queues/default", {}, 400)
        await ask.post("/v1/queues/default/empty?wait=10", {"expected": None})
        await ask.post("/v1/queues/line", {"serial": True})
        blocker = await ask.post("/v1/jobs", {"task": failure, "queue": "line"}, 201)
        async with asyncio.timeout(20):
            while not (await ask.get("/v1/jobs?place=blocked"))["jobs"]:     # noqa: ASYNC110 - no one says so
                await asyncio.sleep(0.01)
        assert (await ask.get("/v1/failed?queue=line"))[0]["reason"] == "blocked"
        assert (await ask.post("/v1/queues/line/head", {"verb": "skip"}))["id"] == blocker["id"]
        await ask.post("/v1/queues/line/head", {"verb": "skip"}, 400)
        operation = await ask.post("/v1/failed/retry?wait=10", {"ids": [failed["id"]]})
        await ask.get(f"/v1/operations/{operation['id']}?wait=1")
        await ask.get("/v1/operations/abcdefghijkl", 404)
        await ask.get(f"/v1/jobs/{failed['id']}?wait=10")
        await ask.post("/v1/failed/delete?wait=10", {"all": True})
        await ask.post("/v1/failed/delete", {}, 400)
        await ask.post("/v1/jobs", {"task": echo, "delay_s": 300}, 201)
        await ask.post("/v1/jobs/cancel?wait=10", {"task": echo})

        await ask.post("/v1/schedules/nightly", {"task": echo, "args": ["n"], "every_s": 86_400, "jitter_s": 1})
        await ask.post("/v1/schedules/cron", {"task": echo, "cron": "0 6 * * *", "tz": "Europe/Berlin"})
        await ask.post("/v1/schedules/wrong", {"task": echo, "cron": "sometimes"}, 400)
        for verb in ("pause", "resume", "run", "delete"):
            await ask.post(f"/v1/schedules/nightly/{verb}")
        await ask.get("/v1/schedules")
        await ask.get("/v1/schedules/cron")
        await ask.get("/v1/schedules/none", 404)

        flow = await ask.post("/v1/flows", {"name": "import", "jobs": [
            {"ref": "a", "task": echo}, {"task": echo, "after": ["a"]},
        ]}, 201)
        assert (await ask.get(f"/v1/flows/{flow['id']}?wait=10"))["state"] == "done"
        await ask.get(f"/v1/flows/{flow['id']}?few=1")
        assert (await ask.get("/v1/flows?name=import&limit=1"))["flows"][0]["id"] == flow["id"]
        assert await ask.get(f"/v1/flows/{flow['id']}/results")
        for verb in ("cancel", "retry"):
            await ask.post(f"/v1/flows/{flow['id']}/{verb}")
        await ask.get("/v1/flows/abcdefghjkmn-00000000", 404)
        await ask.post("/v1/flows", {"name": "import", "jobs": []}, 400)

        assert (await ask.post("/v1/outboxes/shop/turn", {"holder": "a"}))["yours"]
        assert not (await ask.post("/v1/outboxes/shop/turn", {"holder": "b", "waiting": 1}))["yours"]
        assert [box["relay"] for box in await ask.get("/v1/outboxes")] == ["a"]
        await ask.post("/v1/outboxes/.../turn", {"holder": "a"}, 400)

        await ask.get("/v1/ws", 426, **{wire.PROTOCOL_HEADER: "0"})
        async with ask._session.ws_connect(wire.PATH) as socket:
            ask.seen.add((wire.PATH, "get", "101"))
            await socket.close()

        wanted = {
            (path, method, status) for path, methods in ask._paths.items() for method, told in methods.items()
            for status in told["responses"] if int(status) < 300
        }
        missed = {it for it in wanted - ask.seen if it[2] == "200" or it[1] == "get"}
        assert not missed, missed
    async with aiohttp.ClientSession(cluster.url) as stranger:
        ask = Asker(stranger, {"paths": ask._paths, "components": ask._components})
        for path in ("/v1/jobs", "/metrics", "/v1/openapi.json"):
            await ask.get(path, 401)
        await ask.get("/livez")
