"""A polite crawler: so many pages a second of each host, over the whole cluster, and no page twice.

    rota dev --app polite_crawler   # a node
    python polite_crawler.py        # in another terminal: serves a folder on this machine, and has it crawled

What is crawled is Python's own asyncio package, through the pages that `http.server` makes of its folder.
"""

import functools
import http.server
import re
import sysconfig
import threading
import time
import urllib.request
from collections import deque
from pathlib import Path
from typing import ClassVar
from urllib.parse import urljoin, urlsplit

import rota

A_SECOND = 20


def host_of(url: str) -> str:
    return urlsplit(url).netloc


@rota.task(rate_per_key=f"{A_SECOND}/second", key=host_of, unique="url", unique_for=3600)
def crawl(url: str) -> dict[str, object]:
    """One page; the links to others of its host become jobs. A page that was crawled within the hour is not again."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        body, is_html = answer.read(), answer.headers.get_content_type() == "text/html"
    links = [urljoin(url, link) for link in re.findall(r'href="([^"?#]+)"', body.decode())] if is_html else []
    jobs = [crawl.enqueue(link) for link in dict.fromkeys(links) if link.startswith(url) and not link.endswith("pyc")]
    return {"bytes": len(body), "found": [job.id for job in jobs if not job.existing]}


class Log(http.server.SimpleHTTPRequestHandler):
    seen: ClassVar[list[float]] = []

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        self.seen.append(time.monotonic())


def main() -> None:
    folder = Path(sysconfig.get_path("stdlib")) / "asyncio"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Log, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    first = rota.NamedTask("polite_crawler:crawl").using(key=host_of(url), unique_key=url).enqueue(url)
    waiting, pages, size = deque([first]), 0, 0
    while waiting:
        page = waiting.popleft().result(timeout=60)
        pages, size = pages + 1, size + page["bytes"]
        waiting.extend(rota.handle(job) for job in page["found"])
    seen = Log.seen
    most = max(sum(start <= at < start + 1 for at in seen) for start in seen)
    print(f"{pages} pages, {size:,} bytes, {len(seen)} requests, at most {most} in a second")


if __name__ == "__main__":
    main()
