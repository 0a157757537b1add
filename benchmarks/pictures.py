"""`python -m benchmarks.pictures FOLDER`: pictures of every page of the dashboard, wide, dark and on a phone.

Three nodes do a shop's work; a minute later the machine of the master is lost, and another node has taken over when the
pictures are taken. Needs Chromium and Playwright, as the tests of the dashboard do. `--docs` renews those that the
documentation shows.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from rota.client.api.clients import AsyncClient

from .stage import Stage, children, until

DOCS = Path(__file__).parents[1] / "docs" / "pictures"
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-dev-shm-usage"]
WIDE, PHONE = {"width": 1280, "height": 640}, {"width": 390, "height": 760}
HEIGHT_MAX = 1_250
WORK_S, AFTERWARDS_S = 75.0, 25.0
SHOWN = {
    "overview": "overview", "queues": "queues", "job": "job", "schedules": "schedules", "overview-dark": "dark",
    "overview-phone": "phone", "flow": "flow", "jobs": "jobs", "failed-phone": "failed-phone", "job-dark": "job-dark",
}
"""Those of the documentation, and what they are called there."""


shop: Any = None
"""The module of that name, as nodes import it too: from a folder of its own."""


def open_shop(folder: Path) -> None:
    global shop
    shutil.copy(Path(__file__).with_name("shop.py"), folder / "shop.py")
    os.environ["PYTHONPATH"] = str(folder)
    sys.path.insert(0, str(folder))
    shop = importlib.import_module("shop")


async def work(client: AsyncClient, until_s: float) -> None:
    """As customers come: in waves."""
    order, end = 1_000, time.monotonic() + until_s
    while time.monotonic() < end:
        for _ in range(random.randint(1, 6)):
            order += 1
            with contextlib.suppress(Exception):        # (the node that was asked may be the one that is lost)
                await client.enqueue(shop.charge, order, 100 * random.randint(5, 300) + 95)
                await client.enqueue(shop.send_receipt, order, f"customer{order}@example.org")
                if order % 2:
                    await client.enqueue(shop.thumbnail, f"orders/{order}/label.png")
        await asyncio.sleep(random.uniform(0.1, 0.9))


async def prepare(client: AsyncClient) -> dict[str, Any]:
    """What does not come and go; returns what has pages of its own."""
    await client.set_queue("ledger", serial=True)
    for entry in range(1, 9):
        await client.enqueue(shop.book, entry)
    await client.set_queue("payments", max_concurrency=4)
    await client.set_queue("newsletter", paused=True)
    readers = [(number, f"reader{number}@example.org") for number in range(1_200)]
    await client.enqueue_many(shop.send_receipt.using(queue="newsletter"), readers)
    reminder = shop.send_receipt.using(queue="mail", run_after=timedelta(hours=20))
    await client.enqueue_many(reminder, [(n, f"customer{n}@example.org") for n in range(40)])
    done = await flow_of(client, ("acme", "globex", "initech"))
    stuck = await flow_of(client, ("hooli", "umbrella", "stark", "wayne"))
    with contextlib.suppress(TimeoutError):
        await done.await_(20)
    return {"flow": stuck.id}


async def flow_of(client: AsyncClient, suppliers: tuple[str, ...]) -> Any:
    async with client.flow("import") as flow:
        parts: list[Any] = [
            await client.enqueue(shop.convert, await client.enqueue(shop.fetch, one)) for one in suppliers
        ]
        published = await client.enqueue(shop.publish, *parts)
        await client.enqueue(shop.tell, published)
    return flow


def lose_machine(stage: Stage, identity: str) -> None:
    """The guard first: nobody is left to revoke the lease."""
    guard = stage.guard_pid(identity)
    for pid in (guard, *(pid for pid, _ in children(guard))):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def take(url: str, token: str, pages: dict[str, str], folder: Path) -> None:
    from playwright.async_api import async_playwright

    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=FLAGS)
        for kind, size, scheme in (("", WIDE, "light"), ("-dark", WIDE, "dark"), ("-phone", PHONE, "light")):
            context = await browser.new_context(base_url=url, viewport=size, color_scheme=scheme)   # type: ignore[arg-type]
            page = await context.new_page()
            page.set_default_timeout(60_000)
            await page.goto(f"/login#{token}")
            await page.wait_for_selector("#figures")
            for name, path in pages.items():
                await page.goto(path)
                if await page.locator("#live").count():
                    await page.wait_for_selector("#live[data-state=on]")
                await page.wait_for_timeout(1_500)
                tall = await page.evaluate("document.documentElement.scrollHeight")
                clip = {"x": 0, "y": 0, "width": size["width"], "height": min(tall, HEIGHT_MAX)}
                await page.screenshot(path=folder / f"{name}{kind}.png", full_page=True, clip=clip)     # type: ignore[arg-type]
            await context.close()
        context = await browser.new_context(base_url=url, viewport=WIDE)    # type: ignore[arg-type]
        page = await context.new_page()
        await page.goto("/login")
        await page.screenshot(path=folder / "login.png")
        await browser.close()


async def run(folder: Path, scale: float) -> None:
    with tempfile.TemporaryDirectory(prefix="shop-") as data:
        open_shop(Path(data))
        async with Stage(Path(data), nodes=3, ttl_s=3, sync=4, app="shop", cluster="shop") as stage:
            urls = await stage.urls()
            async with stage.client(urls) as client:
                found = await prepare(client)
                await work(client, WORK_S * scale)
                master = await stage.master()
                working = asyncio.create_task(work(client, AFTERWARDS_S * scale + 30))
                for number in range(9):         # so that every node holds some
                    await client.enqueue(shop.import_rows, f"supplier {number}", 300)
                await asyncio.sleep(2.0)
                lose_machine(stage, master)

                async def other() -> str:
                    now = await stage.master()
                    return now if now != master else ""

                new = await until(other, "another node is master")
                await asyncio.sleep(AFTERWARDS_S * scale)
                runs = await client.enqueue(shop.import_rows, "acme", 2_000)
                failed = await client.failed("payments", 1)
                url = (await stage.members())[new].address
                pages = {
                    "overview": "/", "queues": "/queues", "jobs": "/jobs",
                    "jobs-found": "/jobs?task=receipt&place=scheduled", "flows": "/flows",
                    "flow": f"/flows/{found['flow']}", "failed": "/failed", "schedules": "/schedules",
                    "nodes": "/nodes", "settings": "/settings?queue=payments", "job-runs": f"/jobs/{runs.id}",
                } | ({"job": f"/jobs/{failed[0].id}"} if failed else {})
                await take(url, stage.token, pages, folder)
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--docs", action="store_true", help="renew those of the documentation, too")
    parser.add_argument("--scale", type=float, default=1.0, help="a part of the time: 0.3")
    plan = parser.parse_args()
    plan.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(run(plan.folder, plan.scale))
    for name, shown in SHOWN.items() if plan.docs else ():
        shutil.copy(plan.folder / f"{name}.png", DOCS / f"{shown}.png")


if __name__ == "__main__":
    main()
