"""The dashboard without a browser: who gets in, what another site cannot do, what is shown and what never is."""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request

import rota
import rota.testing
from rota.client.calls.pickling import dump_arguments
from rota.client.model import Header
from rota.client.wire.codec import encode_body
from rota.client.wire.keyring import UNSIGNED, Seal
from rota.client.wire.views import JobsPage, JobView
from rota.cluster.dashboard.arguments import CHARS_MAX, described
from rota.cluster.dashboard.charts import latency, nice_top, throughput
from rota.cluster.dashboard.render import Note
from rota.cluster.dashboard.search import Query, found
from rota.cluster.dashboard.session import SESSION_S, Sessions
from rota.cluster.dashboard.site import _own_path
from rota.cluster.dashboard.views import just_before
from rota.cluster.telemetry.hour import Minute, merged
from rota.cluster.telemetry.words import event_words, seconds

HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m'\"&"


@rota.task(max_attempts=1)
def fragile(text: str) -> None:
    raise ValueError(text)


@pytest.fixture(scope="module")
def cluster() -> Iterator[rota.testing.MemoryCluster]:
    with rota.testing.MemoryCluster() as cluster:
        yield cluster


@asynccontextmanager
async def browser(
    cluster: rota.testing.MemoryCluster, token: str | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cluster.url, cookie_jar=jar, headers={"Accept": "text/html"}) as session:
        if token is not None:
            async with session.post("/login", data={"token": token}, allow_redirects=False) as answer:
                assert answer.status in (303, 401)
        yield session


async def seal_of(session: aiohttp.ClientSession) -> str:
    async with session.get("/queues") as answer:
        found = re.search(r'name="seal" value="(\w+)"', await answer.text())
    assert found is not None
    return found[1]


# -- who gets in


async def test_a_stranger_is_shown_the_way_in_and_nothing_else(cluster: rota.testing.MemoryCluster) -> None:
    async with browser(cluster) as web:
        for path in ("/", "/queues", "/jobs", "/failed", "/schedules", "/nodes", "/jobs/a_1_0"):
            async with web.get(path, allow_redirects=False) as answer:
                assert answer.status == 303 and answer.headers["Location"].startswith("/login"), path
        for path in ("/v1/queues", "/v1/events", "/metrics", "/v1/overview"):
            async with web.get(path, headers={"Accept": "*/*"}, allow_redirects=False) as answer:
                assert answer.status == 401, path
        for path in ("/ui/queue", "/ui/failed", "/logout"):
            async with web.post(path, data={"verb": "pause", "queue": "q"}) as answer:
                assert answer.status == 401, path
        async with web.get("/login") as answer:
            assert answer.status == 200 and "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        async with web.get("/static/site.py") as answer:
            assert answer.status == 404


async def test_the_token_opens_and_a_wrong_one_does_not(cluster: rota.testing.MemoryCluster) -> None:
    async with browser(cluster) as web:
        async with web.post("/login", data={"token": "wrong"}, allow_redirects=False) as answer:
            assert answer.status == 401 and not answer.cookies
        async with web.post("/login", data={"token": "x" * 10_000}, allow_redirects=False) as answer:
            assert answer.status == 413
        right = {"token": cluster.token, "next": "//evil.example"}
        async with web.post("/login", data=right, allow_redirects=False) as it:
            assert it.status == 303 and it.headers["Location"] == "/"
            (cookie,) = it.cookies.values()
            assert cookie["httponly"] and cookie["samesite"] == "Lax" and cluster.token not in cookie.value
        async with web.get("/") as answer:
            assert answer.status == 200
        async with web.post("/logout", data={"seal": await seal_of(web)}, allow_redirects=False) as answer:
            assert answer.status == 303
        async with web.get("/", allow_redirects=False) as answer:
            assert answer.status == 303


async def test_a_session_is_for_these_pages_and_not_for_the_port_of_programs(
    cluster: rota.testing.MemoryCluster,
) -> None:
    async with browser(cluster, cluster.token) as web:
        async with web.post("/v1/queues/q", json={"paused": True}) as answer:
            assert answer.status == 401
        async with web.get("/v1/ws") as answer:
            assert answer.status in (400, 401)


async def test_another_site_can_neither_post_nor_forge(cluster: rota.testing.MemoryCluster) -> None:
    async with browser(cluster, cluster.token) as web:
        form = {"verb": "pause", "queue": "guarded", "back": "/"}
        for seal in ("", "0" * 32, "é"):
            async with web.post("/ui/queue", data=form | {"seal": seal}) as answer:
                assert answer.status == 403
        sealed = form | {"seal": await seal_of(web)}
        async with web.post("/ui/queue", data=sealed, headers={"Origin": "http://evil.example"}) as answer:
            assert answer.status == 403
        async with web.get("/queues") as answer:
            assert "guarded" not in await answer.text()
        async with web.post("/ui/queue", data=sealed, headers={"Origin": cluster.url}, allow_redirects=False) as answer:
            assert answer.status == 303
        async with web.get("/queues?find=guarded") as answer:
            page = await answer.text()
            assert "paused" in page and "Queue guarded is paused." in page
        async with web.post("/ui/queue", data=sealed | {"verb": "resume"}) as answer:
            assert "Queue guarded goes on." in await answer.text()


def test_sessions_end_and_cannot_be_made_up() -> None:
    now = [1_000.0]
    sessions, others = Sessions("secret", "c", lambda: now[0]), Sessions("other", "c", lambda: now[0])
    cookie = sessions.begin()
    assert sessions.is_good(cookie) and Sessions("secret", "c", lambda: now[0]).is_good(cookie)
    assert not others.is_good(cookie) and not sessions.is_own_form(cookie, others.form_seal(cookie))
    until, rest = cookie.split(".", 1)
    for forged in (None, "", "a", f"{int(until) + 1}.{rest}", cookie[:-1], "\ud800", "9" * 500):
        assert not sessions.is_good(forged)
    now[0] += SESSION_S + 1
    assert not sessions.is_good(cookie)


@pytest.mark.parametrize(("where", "to"), [
    ("/jobs?queue=a%20b", "/jobs?queue=a%20b"), ("//evil.example/", "/"), ("https://evil.example", "/"),
    ("/\\evil", "/"),
    ("/a\r\nSet-Cookie: x", "/"), ("", "/"), ("/" + "a" * 5_000, "/"),
])
def test_the_way_back_is_a_path_of_ours(where: str, to: str) -> None:
    assert _own_path(where) == to
    assert not urlsplit(_own_path(where)).netloc


@pytest.mark.parametrize("cookie", ["", "!", "e30", "bnVsbA", "/w", "A" * 9_000])
def test_a_note_that_nobody_wrote_is_none(cookie: str) -> None:
    assert Note.from_cookie(cookie) is None
    assert Note.from_cookie(Note("ünder way", True).to_cookie()) == Note("ünder way", True)


# -- what is shown


async def test_hostile_text_stays_text(cluster: rota.testing.MemoryCluster) -> None:
    handle = fragile.using(queue="odd").enqueue(HOSTILE)
    with pytest.raises(rota.JobFailed):
        handle.result(timeout=60)
    async with browser(cluster, cluster.token) as web:
        for path in (f"/jobs/{handle.id}", "/failed", "/jobs", "/queues", "/"):
            async with web.get(path) as answer:
                page = await answer.text()
            assert answer.status == 200
            assert "<script>alert" not in page and "\u202e" not in page and "\x1b" not in page, path
        async with web.get(f"/jobs/{handle.id}") as answer:
            page = await answer.text()
        assert "&lt;script&gt;alert(1)" in page and "\\u202e" in page and "Traceback" in page
        async with web.get("/jobs", params={"queue": HOSTILE, "task": HOSTILE}) as answer:
            assert "<script>alert" not in await answer.text()
        async with web.get("/queues", params={"find": HOSTILE}) as answer:
            assert "<script>alert" not in await answer.text()
        async with web.get("/jobs", params={"id": HOSTILE}) as answer:
            page = await answer.text()
            assert answer.status == 400 and "<script>alert" not in page


async def test_failed_jobs_are_retried_and_deleted_one_some_and_all(cluster: rota.testing.MemoryCluster) -> None:
    handles = [fragile.using(queue="repair").enqueue(f"no {number}") for number in range(4)]
    for handle in handles:
        with pytest.raises(rota.JobFailed):
            handle.result(timeout=60)
    async with browser(cluster, cluster.token) as web:
        seal = {"seal": await seal_of(web), "back": "/failed?queue=repair"}

        async def act(what: str, *fields: tuple[str, str]) -> str:
            async with web.post(f"/ui/{what}", data=[*seal.items(), *fields]) as answer:
                return await answer.text()

        assert "1 job is deleted." in await act("job", ("verb", "delete"), ("id", handles[0].id))
        assert "No job is chosen" in await act("failed", ("verb", "delete"))
        page = await act("failed", ("verb", "delete"), ("id", handles[1].id), ("id", handles[2].id))
        assert "2 jobs are deleted." in page and handles[3].id in page and handles[1].id not in page
        assert "1 job is retried." in await act("failed", ("verb", "retry-all"), ("queue", "repair"))
        assert "is none of" in await act("failed", ("verb", "explode"))
        assert "There is no such form" in (await act("elsewhere")).replace("there", "There")


async def test_queues_come_in_pages_however_many_there_are(cluster: rota.testing.MemoryCluster) -> None:
    names = [f"many-{number:03d}" for number in range(120)]
    for name in names:
        fragile.using(queue=name, run_after=timedelta(hours=1)).enqueue("later")
    async with browser(cluster, cluster.token) as web:
        for name in names[:60]:
            async with web.post("/v1/queues/" + name, json={"paused": True}, headers={
                "Authorization": f"Bearer {cluster.token}"
            }) as answer:
                assert answer.status == 200
        seen: list[str] = []
        path = "/queues?find=many-"
        for _ in range(10):
            async with web.get(path) as answer:
                page = await answer.text()
            seen += re.findall(r'/jobs\?queue=(many-\d+)"', page)
            following = re.search(r'href="(/queues\?[^"]+)" rel="next"', page)
            if following is None:
                break
            path = following[1].replace("&amp;", "&")
        assert seen == names


async def test_what_the_store_does_not_answer_is_said_on_a_page(cluster: rota.testing.MemoryCluster) -> None:
    async with browser(cluster, cluster.token) as web:
        for path in ("/jobs/not-a-job", "/jobs?after=made-up", "/jobs?place=nowhere", "/failed?queue=a&after=b/c"):
            async with web.get(path) as answer:
                assert answer.status in (400, 404) and "That did not work" in await answer.text(), path


# -- arguments, without making them


class Made:
    made = 0

    def __init__(self, text: str) -> None:
        Made.made += 1
        self.text = text

    def __reduce__(self) -> Any:
        return (Made, (self.text,))


def body(payload: bytes, codec: Any = "pickle") -> bytes:
    header = Header(
        bundle="a-00000001", task="t", queue="q", mode="sync", indexes=[0], sizes=[len(payload)], enqueued_at=0.0,
        codec=codec,
    )
    return encode_body(Seal(UNSIGNED, "t").keyring.sign(header, [payload], "t"), [payload])


@pytest.mark.parametrize(("call", "shown"), [
    (((), {}), "(no arguments)"),
    (((1, -2.5, None, True, "a'b", b"\xff"), {}), "1, -2.5, None, True, \"a'b\", b'\\xff'"),
    (((), {"width": 120, "tags": ["a", ("b",)]}), "width=120, tags=['a', ('b',)]"),
    ((({"k": {1}},), {"x": frozenset({2})}), "{'k': {1}}, x=frozenset({2})"),
    (((2**70,), {}), str(2**70)),
])
def test_arguments_are_shown_as_they_were_written(call: tuple[Any, Any], shown: str) -> None:
    payload, codec = dump_arguments(*call)
    assert described(body(payload, codec)) == shown


def test_nothing_is_made_to_be_shown() -> None:
    payload = pickle.dumps(((Made("x"),), {}), 5)
    before = Made.made
    assert "Made('x')" in described(body(payload)) and Made.made == before


def test_what_grows_without_end_is_cut() -> None:
    nested: Any = "x" * 50
    for _ in range(60):
        nested = [nested, nested]
    loop: list[Any] = []
    loop.append(loop)
    for value in (nested, loop, list(range(10_000)), "y" * 100_000, {n: n for n in range(9_999)}, 10**5_000):
        assert len(described(body(pickle.dumps(((value,), {}), 5)))) <= CHARS_MAX + 10


@pytest.mark.parametrize("payload", [
    b"", b"\x80", b"garbage", b".", b"(((.", b"\x80\x05h\x00.", b"\x80\x05N.", b"cos\nsystem\n.",
])
def test_what_is_no_call_is_not_shown(payload: bytes) -> None:
    assert described(body(payload)) == "These arguments cannot be shown."
    assert described(payload) == "These arguments cannot be shown."


# -- pictures and words


def test_charts_say_nothing_where_nothing_was() -> None:
    quiet = merged([], 1_800_000_000.0)
    assert throughput(quiet).is_empty and latency(quiet).is_empty


def test_charts_stay_within_their_frame() -> None:
    at = 1_800_000_000 // 60
    minutes = merged([[Minute(at - 3, 7, 1_000, 500, 2, 1, [0] * 17 + [5], [3]), Minute(at, 1, 0, 0, 1)]], at * 60.0)
    for chart in (throughput(minutes), latency(minutes)):
        assert not chart.is_empty and len(chart.columns) == 10      # all there was, and no empty hour
        for bar in chart.bars:
            assert 0 < bar.height <= 139 and 9 <= bar.y <= 149
        for line in chart.lines:
            numbers = [float(number) for number in re.findall(r"[\d.]+", line.points)]
            assert all(0 <= number <= 480 for number in numbers)
    assert "500 of them failed" in throughput(minutes).title


@pytest.mark.parametrize(("ago", "minutes"), [(0, 10), (8, 10), (9, 10), (10, 30), (29, 30), (30, 60), (59, 60)])
def test_charts_go_back_as_far_as_there_was_something(ago: int, minutes: int) -> None:
    at = 1_800_000_000 // 60
    chart = throughput(merged([[Minute(at - ago, 7, 5)]], at * 60.0))
    assert len(chart.columns) == minutes and len(chart.bars) == 1
    assert 2 <= len(chart.x_ticks) <= 6 and all(56 < tick.at < 472 for tick in chart.x_ticks)


@pytest.mark.parametrize(("value", "shown"), [
    (None, "–"), (0.0001, "<1 ms"), (0.0123, "12 ms"), (1.234, "1.23 s"), (100.0, "100 s"), (3_600.0, "60 min"),
    (90_000.0, "25 h"), (1e6, "12 d"),
])
def test_durations_for_people(value: float | None, shown: str) -> None:
    assert seconds(value) == shown


def test_round_tops_and_names_before() -> None:
    assert [nice_top(value) for value in (0, 4, 5, 11, 99, 100, 101, 6_500)] == [4, 4, 6, 20, 100, 100, 200, 8_000]
    for name in ("mail", "a", "é", "\ue000"):
        before = just_before(name)
        assert before.encode() < name.encode() and not before.startswith(name)


@pytest.mark.parametrize("fields", [{}, {"node": HOSTILE, "claims": "x", "duration_s": "soon"}, {"node": None}])
def test_an_event_that_does_not_fit_its_words_is_told_as_it_is(fields: dict[str, Any]) -> None:
    assert event_words("took_over", fields).startswith("took_over")
    assert event_words("from_the_future", fields).startswith("from_the_future")


@rota.task(keep_log=5)
def tells(text: str) -> None:
    rota.progress(3, 4, note=text)
    logging.getLogger("shop").warning("said %s", text)
    raise ValueError("enough")


async def test_a_job_shows_its_progress_and_its_log(cluster: rota.testing.MemoryCluster) -> None:
    handle = tells.using(max_attempts=1).enqueue(HOSTILE)
    with pytest.raises(rota.JobFailed):
        handle.result(timeout=60)
    async with browser(cluster, cluster.token) as web, web.get(f"/jobs/{handle.id}") as answer:
        page = await answer.text()
    assert answer.status == 200 and "Log of attempt 1" in page and "WARNING  said &lt;script&gt;" in page
    assert "\u202e" not in page


async def test_jobs_are_found_by_a_part_of_the_task_and_by_key(cluster: rota.testing.MemoryCluster) -> None:
    later = fragile.using(queue="searched", run_after=timedelta(hours=1))
    one, other = later.using(key="ann").enqueue("a"), later.enqueue("b")
    hidden = later.using(queue="elsewhere").enqueue("c")
    async with browser(cluster, cluster.token) as web:
        async def shown(**fields: str) -> str:
            async with web.get("/jobs", params=fields) as answer:
                assert answer.status == 200
                return await answer.text()

        page = await shown(queue="searched", task="FRAG", place="scheduled")
        assert one.id in page and other.id in page and hidden.id not in page
        assert 'value="FRAG"' in page and f'<option value="{fragile.name}">' in page
        page = await shown(queue="searched", task=fragile.name, key="ann")
        assert one.id in page and other.id not in page
        assert "No such job" in await shown(queue="searched", task="nothing-like-it")
        async with web.get("/jobs", params={"id": f" {other.id} "}, allow_redirects=False) as answer:
            assert answer.headers["Location"] == f"/jobs/{other.id}"


async def test_a_search_goes_on_until_its_page_is_full_and_its_links_keep_what_was_asked_for() -> None:
    class Service:
        """Its parts of the list are short."""

        def __init__(self) -> None:
            self.asked: list[tuple[Any, ...]] = []

        async def jobs(self, *asked: Any) -> JobsPage:
            self.asked.append(asked)
            return JobsPage([JobView(f"a_1_{len(self.asked)}", "waiting", "app:x", "q")], f"jobs:{len(self.asked)}")

    service: Any = Service()
    query = Query(make_mocked_request("GET", "/jobs?task=X&queue=q&place=waiting&after=jobs:0"))
    page = await found(service, query, ["app:x"], 3)
    assert [job.id for job in page.jobs] == ["a_1_1", "a_1_2", "a_1_3"] and page.next == "jobs:3"
    assert [asked[3:5] for asked in service.asked] == [(3, "jobs:0"), (2, "jobs:1"), (1, "jobs:2")]
    assert query.address(page.next) == "/jobs?place=waiting&queue=q&task=X&after=jobs%3A3"
    assert query.address() == "/jobs?place=waiting&queue=q&task=X"
