"""Answers of the port, as JSON, and what requests ask of them: how many, how long."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from rota.client.errors import InvalidJob
from rota.client.options.checks import duration_s

HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
WAIT_S_MAX = 60.0


def json_page(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json",
        headers=HEADERS | (headers or {}),
    )  # fmt: skip


def refuse(
    status: int, error: str, message: str, advice: str = "", headers: dict[str, str] | None = None
) -> web.Response:
    return json_page({"error": error, "message": message, "advice": advice}, status, headers)


def wait_s(request: web.Request, default_s: float = 0.0) -> float:
    """How long a request asks to wait (`?wait=10`), beyond what an answer takes."""
    try:
        return max(0.0, min(float(request.query.get("wait", default_s)), WAIT_S_MAX))
    except ValueError:
        return default_s


def limit_of(request: web.Request, most: int) -> int:
    """How long a part of a list may be (`?limit=100`, which is the default)."""
    limit = int(number_of(request.query.get("limit", "100"), "limit"))
    if not 0 <= limit <= most:
        raise InvalidJob(f"limit={limit}: at most {most:,} at a time; the header Link says where to go on")
    return limit


def number_of(text: str, name: str) -> float:
    try:
        return duration_s(float(text), name)
    except ValueError:
        raise InvalidJob(f"{name}={text!r:.40} is not a number") from None


def listed(request: web.Request, views: list[Any], after: str) -> web.Response:
    """A part of a list; where there is more, the header `Link` says how to ask for the next part."""
    link = {"Link": f'<{request.rel_url.update_query(after=after)}>; rel="next"'} if after else {}
    return json_page(views, headers=link)
