"""Answers of the port, as JSON."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

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
