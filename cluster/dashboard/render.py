"""Templates, and the words in them. Every text that a page shows goes through the one escape for what is not simply
shown (docs/decisions/0021), and through HTML's."""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from rota.client.escape import escaped

from ..telemetry.words import event_words, seconds

FOLDER = Path(__file__).parent
STATIC = {"app.css": "text/css", "app.js": "text/javascript", "icon.svg": "image/svg+xml"}
NOTE_CHARS_MAX = 400

SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Note(msgspec.Struct, frozen=True):
    """What a person is told after something was done: it waits for the next page in a cookie."""

    text: str
    bad: bool = False

    def to_cookie(self) -> str:
        note = Note(self.text[:NOTE_CHARS_MAX], self.bad)
        return base64.urlsafe_b64encode(msgspec.json.encode(note)).decode().rstrip("=")

    @classmethod
    def from_cookie(cls, cookie: str | None) -> Note | None:
        if not cookie or len(cookie) > 8 * NOTE_CHARS_MAX:
            return None
        try:
            return msgspec.json.decode(base64.urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4)), type=cls)
        except (binascii.Error, msgspec.DecodeError, UnicodeError, ValueError):
            return None


class Renderer:
    def __init__(self) -> None:
        self.static = {name: (FOLDER / "static" / name).read_bytes() for name in STATIC}
        environment = Environment(
            loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True, finalize=_shown, auto_reload=False,
        )
        environment.filters |= {
            "lines": _lines, "moment": moment, "seconds": seconds, "count": _count, "event": event_words,
            "short": _short, "clock": _clock,
        }
        environment.globals["asset"] = {name: _versioned(name, data) for name, data in self.static.items()}
        self._environment = environment

    def page(self, name: str, **values: Any) -> str:
        return self._environment.get_template(name).render(**values)


def _versioned(name: str, data: bytes) -> str:
    return f"/static/{name}?{hashlib.sha256(data).hexdigest()[:8]}"


def _shown(value: Any) -> Any:
    """What a template puts out."""
    return escaped(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _lines(text: str) -> Markup:
    """A text whose line ends are meant."""
    return escape(escaped(text, lines=True))


def _short(text: str, chars: int = 160) -> str:
    return text if len(text) <= chars else text[: chars - 1] + "…"


def moment(at: float | None) -> Markup:
    """A moment as `<time>`: in UTC; the script adds how long ago it was."""
    if at is None or not 0 < at < 32_503_680_000:
        return Markup('<span class="quiet">–</span>')
    when = datetime.datetime.fromtimestamp(at, datetime.UTC)
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        when.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z", when.strftime("%Y-%m-%d %H:%M:%S"),
        when.strftime("%Y-%m-%d %H:%M:%S"),
    )


def _clock(at: float) -> str:
    """In UTC."""
    if not 0 < at < 32_503_680_000:
        return "--:--:--"
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%H:%M:%S")


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
