"""The dashboard in a real browser: every button, the login, what comes live, no script of others, no error.

Needs Chromium (Debian: the package `chromium`) and Playwright; skipped, and said so, where one is missing.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import rota
import rota.testing
from rota.cluster.events import records as r
from rota.cluster.ledger.ledger import Delete, Op, Put, Txn
from rota.cluster.state.records import Member, encode

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian: apt-get install chromium)")

AXE = next((path for path in (
    Path(os.environ.get("AXE_CORE", "none")), Path(__file__).parents[3] / "node_modules/axe-core/axe.min.js",
) if path.is_file()), None)
"""Only for this check; nothing of it is shipped."""

FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-dev-shm-usage"]
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\u202eevil"
PATIENCE_MS = 15_000
PAGES = ("/", "/queues", "/jobs", "/flows", "/failed", "/schedules", "/nodes", "/settings?queue=mail")

go_on = threading.Event()


@rota.task(max_attempts=1)
def refuses(text: str) -> None:
    raise ValueError(text)


@rota.task
def waits() -> None:
    go_on.wait(60)


open_for = threading.Event()


@rota.task
def fetches(number: int) -> int:
    open_for.wait(60)
    return number


@rota.task(max_attempts=1)
def adds(numbers: list[int]) -> int:
    if "mended" not in said:
        raise ValueError("not yet")
    return sum(numbers)


said: set[str] = set()


@rota.task
def hourly() -> None:
    return


class Seen:
    """A page, and all that its console said."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.said: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda it: self.said.append(it.text) if it.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", self._dialog)
        self.asked: list[str] = []

    def _dialog(self, dialog: Any) -> None:
        self.asked.append(dialog.message)
        dialog.accept()

    def note(self) -> str:
        return str(self.page.locator(".note").inner_text())


@pytest.fixture(scope="module")
def cluster() -> Iterator[rota.testing.MemoryCluster]:
    with rota.testing.MemoryCluster() as cluster:
        yield cluster
        go_on.set()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def logged_in(cluster: rota.testing.MemoryCluster, chromium: Any) -> Iterator[Any]:
    """As a person would; once."""
    context = chromium.new_context(base_url=cluster.url, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto("/jobs")
    assert "/login?next=" in page.url
    page.fill("#token", cluster.token)
    page.click("button.go")
    page.wait_for_url("**/jobs")
    page.close()
    yield context
    context.close()


@pytest.fixture
def seen(logged_in: Any) -> Iterator[Seen]:
    seen = Seen(logged_in.new_page())
    yield seen
    seen.page.close()
    assert not seen.said


def failed(cluster: rota.testing.MemoryCluster, queue: str, count: int, text: str = "no luck") -> list[str]:
    handles = [refuses.using(queue=queue).enqueue(text) for _ in range(count)]
    for handle in handles:
        with pytest.raises(rota.JobFailed):
            handle.result(timeout=60)
    return [handle.id for handle in handles]


def test_a_wrong_token_is_refused_and_an_address_with_the_token_logs_in(
    cluster: rota.testing.MemoryCluster, chromium: Any
) -> None:
    context = chromium.new_context(base_url=cluster.url)
    page = context.new_page()
    page.goto("/")
    page.fill("#token", "guessed")
    page.click("button.go")
    assert "not this cluster's token" in page.locator("[role=alert]").inner_text()
    page.goto(f"/login#{cluster.token}")
    page.wait_for_selector("#figures")
    assert cluster.token not in page.url and cluster.token not in page.content()
    context.close()


def test_queues_are_paused_and_resumed(cluster: rota.testing.MemoryCluster, seen: Seen) -> None:
    refuses.using(queue="mail", run_after=timedelta(hours=1)).enqueue("later")
    seen.page.goto("/queues?find=mail")
    seen.page.click("text=Pause")
    assert "Queue mail is paused." in seen.note()
    assert seen.page.locator("tbody .state.paused").count() == 1
    seen.page.click("text=Resume")
    assert "Queue mail goes on." in seen.note()


def test_failed_jobs_one_some_all(cluster: rota.testing.MemoryCluster, seen: Seen) -> None:
    ids = failed(cluster, "images", 5)
    seen.page.goto(f"/jobs/{ids[0]}")
    assert "ValueError: no luck" in seen.page.locator(".error").inner_text()
    assert "Traceback" in seen.page.locator("pre[aria-label=Traceback]").inner_text()
    assert "'no luck'" in seen.page.locator("pre.code").first.inner_text()
    assert "attempt 1" in seen.page.locator(".steps").inner_text()
    seen.page.click("button:text-is('Delete')")
    assert "1 job is deleted." in seen.note() and seen.asked
    seen.page.goto(f"/jobs/{ids[1]}")
    seen.page.click("button:text-is('Retry')")
    assert "1 job is retried." in seen.note()
    seen.page.goto("/failed?queue=images")
    seen.page.wait_for_selector("tbody tr:nth-child(4)")
    for id_ in ids[2:4]:
        seen.page.check(f'input[value="{id_}"]')
    seen.page.click("text=Delete chosen")
    assert "2 jobs are deleted." in seen.note()
    seen.page.click("summary")
    seen.page.click("text=Delete all that fit")
    assert "2 jobs are deleted." in seen.note()
    assert "No job has failed" in seen.page.locator("#failed").inner_text()


def test_a_running_job_is_cancelled_and_the_page_follows(cluster: rota.testing.MemoryCluster, seen: Seen) -> None:
    handle = waits.enqueue()
    seen.page.goto(f"/jobs/{handle.id}")
    seen.page.wait_for_selector(".state.running, .state.claimed")
    seen.page.click("button:text-is('Cancel')")
    assert "asked to stop it" in seen.note()
    go_on.set()
    seen.page.wait_for_selector(".lead .state.finished, .lead .state.failed")
    go_on.clear()


def test_a_flow_is_drawn_live_and_what_failed_is_retried(cluster: rota.testing.MemoryCluster, seen: Seen) -> None:
    with rota.flow("import") as flow:
        numbers = fetches.enqueue_many([(number,) for number in range(3)])
        total = adds.enqueue(numbers)  # type: ignore[arg-type]
        waits.using(after=total, run_after=3600).enqueue()
    page = seen.page
    page.goto("/flows")
    page.click("text=import")
    page.wait_for_selector(".graph .box")
    assert page.locator(".graph .box").count() == 3 and page.locator(".graph .edge").count() == 2
    assert page.locator(".box .what").first.inner_html() == "fetches ×3"
    open_for.set()
    page.wait_for_selector(".box.ok")       # live
    page.wait_for_selector(".state.stuck")
    said.add("mended")
    page.click("text=Retry what failed")
    assert "1 job is tried again." in seen.note()
    page.wait_for_selector(".box.ok >> nth=1")
    page.click(".box >> nth=0")
    page.wait_for_url("**/jobs/*")
    page.goto(f"/flows/{flow.id}")
    page.click("text=Cancel")
    assert "1 jobs are cancelled" in seen.note()
    page.wait_for_selector(".state.failed")


def test_schedules_run_now_pause_resume(cluster: rota.testing.MemoryCluster, seen: Seen) -> None:
    cluster.client.schedules.put("hourly", hourly, every=timedelta(hours=1))
    seen.page.goto("/schedules")
    seen.page.click("text=Run now >> nth=0")
    assert "is enqueued." in seen.note()
    seen.page.click("text=Pause >> nth=0")
    assert "is paused." in seen.note()
    seen.page.click("text=Resume >> nth=0")
    assert "goes on." in seen.note()
    seen.page.click("text=Delete >> nth=0")
    assert "Schedule hourly is deleted." in seen.note() and seen.asked
    assert "There is no schedule" in seen.page.locator("#schedules").inner_text()


def test_settings_of_a_queue_are_shown_and_changed(cluster: rota.testing.MemoryCluster, seen: Seen) -> None:
    refuses.using(queue="slow", run_after=timedelta(hours=1)).enqueue("later")
    seen.page.goto("/queues?find=slow")
    seen.page.click("a[aria-label='Settings of slow']")
    seen.page.check("[name=paused]")
    seen.page.fill("[name=max_concurrency]", "4")
    seen.page.fill("[name=rate]", "100/minute")
    seen.page.click("text=Save")
    assert "Queue slow is set." in seen.note()
    (row,) = [row for row in cluster.client.queues() if row.queue == "slow"]
    assert (row.paused, row.serial, row.max_concurrency, row.rate) == (True, False, 4, "100/m")
    assert seen.page.input_value("[name=rate]") == "100/m"
    seen.page.fill("[name=max_concurrency]", "many")
    seen.page.click("text=Save")
    assert "a number, or nothing" in seen.note()
    seen.page.uncheck("[name=paused]")
    seen.page.fill("[name=max_concurrency]", "")
    seen.page.fill("[name=rate]", "")
    seen.page.click("text=Save")
    (row,) = [row for row in cluster.client.queues() if row.queue == "slow"]
    assert (row.paused, row.max_concurrency, row.rate) == (False, None, None)
    assert refuses.name in seen.page.locator("#tasks").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(cluster: rota.testing.MemoryCluster, seen: Seen, scheme: str) -> None:
    """WCAG 2.1 A and AA and good practice, as axe-core checks them, on every page."""
    if AXE is None:
        pytest.skip("no axe-core (npm install --no-save axe-core, or AXE_CORE=the path of its axe.min.js)")
    (id_,) = failed(cluster, "axe", 1)
    cluster.client.schedules.put("axe", hourly, every=timedelta(hours=1))
    seen.page.emulate_media(color_scheme=scheme)
    wrong: list[Any] = []
    for path in (*PAGES, f"/jobs/{id_}", "/failed?queue=axe", "/jobs?place=nowhere"):
        seen.page.goto(path)
        seen.page.evaluate(AXE.read_text())
        found = seen.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        wrong += [
            (path, it["id"], it["help"], [node["html"][:200] for node in it["nodes"][:3]])
            for it in found["violations"]
        ]
    seen.said = [text for text in seen.said if "400 (Bad Request)" not in text]       # the page that is none
    assert not wrong


def test_jobs_are_found_by_id_state_queue_and_task(cluster: rota.testing.MemoryCluster, seen: Seen) -> None:
    (id_,) = failed(cluster, "found", 1)
    seen.page.goto("/jobs")
    seen.page.keyboard.press("/")
    seen.page.keyboard.type(id_)
    seen.page.keyboard.press("Enter")
    seen.page.wait_for_url(f"**/jobs/{id_}")
    seen.page.goto("/jobs")
    seen.page.select_option("select[name=place]", "failed")
    seen.page.fill("input[name=queue]", "found")
    seen.page.fill("input[name=task]", refuses.name)
    seen.page.click("text=Find")
    assert seen.page.locator("tbody tr").count() == 1 and id_ in seen.page.locator("tbody").inner_text()


def test_what_happens_comes_live_and_a_lost_node_goes(cluster: rota.testing.MemoryCluster, seen: Seen) -> None:
    seen.page.goto("/")
    seen.page.wait_for_selector("#live[data-state=on]")
    emit = cluster._node.events.emit
    cluster._loop.call_soon_threadsafe(emit, r.NodeGone("other-1"))
    cluster._loop.call_soon_threadsafe(emit, r.TookOver("other-1", 12, 0.034))
    seen.page.wait_for_selector("#events :text('took over what other-1 held (12) in 0.034 s')")
    seen.page.wait_for_selector("#figures :text('0.034 s')")
    assert "other-1 is gone" in seen.page.locator("#events").inner_text()


def test_pages_fit_a_phone_and_can_be_used_with_a_keyboard(cluster: rota.testing.MemoryCluster, seen: Seen) -> None:
    failed(cluster, "narrow", 1, "x" * 400)
    seen.page.set_viewport_size({"width": 360, "height": 740})
    for path in PAGES:
        seen.page.goto(path)
        wide = seen.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, path
    seen.page.goto("/failed")
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(40):
        seen.page.keyboard.press("Tab")
        reached.add(seen.page.evaluate("(document.activeElement.value || document.activeElement.textContent).trim()"))
    assert {"Queues", "retry", "delete", "Find"} <= reached or {"Retry chosen", "Delete chosen"} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(cluster: rota.testing.MemoryCluster, seen: Seen, scheme: str) -> None:
    """WCAG AA: a contrast of 4.5, measured on every text of every page."""
    failed(cluster, "contrast", 1)
    seen.page.emulate_media(color_scheme=scheme)
    for path in PAGES:
        seen.page.goto(path)
        assert not seen.page.evaluate(CONTRAST), path


CONTRAST = r"""() => {
  const parse = (text) => { const n = text.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const linear = (v) => v / 255 <= .03928 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
  const light = (c) => .2126 * linear(c[0]) + .7152 * linear(c[1]) + .0722 * linear(c[2]);
  const ground = (it) => {
    for (; it; it = it.parentElement) {
      const colour = parse(getComputedStyle(it).backgroundColor);
      if (colour[3] > .99) return colour;
    }
    return [255, 255, 255, 1];
  };
  const bad = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const it = walk.currentNode.parentElement, text = walk.currentNode.textContent.trim();
    if (!text || it.closest("svg, option, .skip, .hidden") || !it.getClientRects().length) continue;
    const one = light(parse(getComputedStyle(it).color)), two = light(ground(it));
    const ratio = (Math.max(one, two) + .05) / (Math.min(one, two) + .05);
    if (ratio < 4.5) bad.push(`${ratio.toFixed(2)} ${it.className} ${text.slice(0, 40)}`);
  }
  return bad.join("; ");
}"""


WIDEST = "W" * 128
"""The longest name, which nothing breaks into lines by itself."""
PRINTABLE = HOSTILE.replace("\u202e", "")
FROM_THE_RIGHT = "\u05d0" * 60 + "\u202e".join(("evil", "</td></table></main>")) + HOSTILE


@rota.task(name="<script>alert:1<img", max_attempts=1, keep_log=10)
def hostile_task(*args: Any, **kwargs: Any) -> None:
    rota.step(PRINTABLE, str, 1)
    rota.progress(1, 2, HOSTILE + "w" * 300)
    logging.getLogger(HOSTILE).error("%s", FROM_THE_RIGHT + "w" * 300)
    if kwargs.get("ends"):
        raise ValueError(FROM_THE_RIGHT + "\x1b[31m\x00" + "x" * 300)
    go_on.wait(60)


def stored(cluster: rota.testing.MemoryCluster, op: Op) -> None:
    cluster._call(cluster._ledger.commit(Txn((), (op,))))


def member(text: str) -> Member:
    """A node that says this of itself wherever it says something."""
    return Member(text, ["nothing", text], {text: "sync"}, {text: 1}, text, text, time.time(), text, labels=[text])


@pytest.fixture(scope="module")
def hostile(cluster: rota.testing.MemoryCluster) -> Iterator[dict[str, str]]:
    """Whatever people can choose a text for has one that is meant ill; returns ids."""
    wild = hostile_task.using(
        queue=WIDEST, key=PRINTABLE, unique_key=PRINTABLE, fair_key=PRINTABLE,
        headers={"tenant": PRINTABLE, "x" * 60: "y" * 600},
    )
    go_on.clear()
    lost = wild.enqueue(HOSTILE, {HOSTILE: [FROM_THE_RIGHT, b"<script>"]}, ends=True)
    with pytest.raises(rota.JobFailed):
        lost.result(timeout=20)
    runs = hostile_task.using(queue=f"{WIDEST[:-1]}2").enqueue(**{HOSTILE: "w" * 500})
    with rota.flow(WIDEST) as flow:
        hostile_task.using(queue=WIDEST, run_after=3600).enqueue(HOSTILE)
    cluster.client.schedules.put(WIDEST, hostile_task.using(queue=WIDEST), [HOSTILE], every=3600)
    cluster.client.set_queue(WIDEST, max_concurrency=1, rate="1/hour")
    key, emit = cluster._keys.node(HOSTILE.replace("/", "-")), cluster._node.events.emit
    stored(cluster, Put(key, encode(member(FROM_THE_RIGHT + "w" * 300))))
    cluster._loop.call_soon_threadsafe(emit, r.ScheduleRefused(HOSTILE, HOSTILE))
    cluster._loop.call_soon_threadsafe(emit, r.TookOver(FROM_THE_RIGHT, 12, 0.034))
    yield {"failed": lost.id, "runs": runs.id, "flow": flow.id}
    stored(cluster, Delete(key))
    go_on.set()


def test_hostile_text_runs_nowhere_and_breaks_no_page(
    cluster: rota.testing.MemoryCluster, seen: Seen, hostile: dict[str, str]
) -> None:
    """In names, keys, headers, arguments, errors, steps, progress, logs, what a node says of itself, events, and in
    what is searched for; on a wide screen and on a phone."""
    queue, page = quote(WIDEST), seen.page
    shown = ""
    for path in (
        *PAGES, f"/jobs/{hostile['failed']}", f"/jobs/{hostile['runs']}", f"/flows/{hostile['flow']}",
        f"/jobs?queue={queue}", f"/failed?queue={queue}", f"/settings?queue={queue}", f"/queues?find={queue}",
        f"/queues?find={quote(HOSTILE)}", f"/jobs?task={quote(HOSTILE)}", f"/failed?queue={quote(HOSTILE)}",
    ):
        page.set_viewport_size({"width": 1280, "height": 900})
        page.goto(path)
        page.wait_for_selector("#live[data-state=on]")
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 800})
            assert not page.evaluate(SPILLED), (path, width)
        assert page.locator("main script, main img").count() == 0
        assert page.locator("main").count() == 1 and page.locator("footer, body > table").count() == 0
        shown += page.content()
    assert not seen.asked
    assert not set("\u202e\x1b\x00") & set(shown)
    assert "&lt;img src=x onerror=alert(1)&gt;" in shown
    for told in ("&lt;script&gt;alert:1&lt;img", WIDEST, "\\u202e"):
        assert told in shown


SPILLED = r"""() => {
  const wide = document.documentElement;
  if (wide.scrollWidth > wide.clientWidth) return `the page: ${wide.scrollWidth} of ${wide.clientWidth}`;
  const spilled = [], boxes = ".card, .table, .events, .steps, .facts, .code, .settings, .note, .head";
  for (const it of document.querySelectorAll(boxes)) {
    if (it.scrollWidth <= it.clientWidth + 1 || getComputedStyle(it).overflowX !== "visible") continue;
    spilled.push(`${it.className}: ${it.scrollWidth} of ${it.clientWidth}`);
  }
  return spilled.join("; ");
}"""
"""What is wider than it may be."""
