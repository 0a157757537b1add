"""Text that somebody else wrote, on its way to a terminal or a log."""

from __future__ import annotations

import json
import logging
import sys
import unicodedata

import pytest

from rota.client.escape import LineFormatter, escaped, escaped_json

HOSTILE = {
    "colour": "\x1b[31m", "clipboard": "\x1b]52;c;cm0gLXJmIH4=\x07", "title": "\x1b]0;root@prod\x1b\\", "C1": "\x9b31m",
    "next line": "\x85", "carriage return": "fine\rbad", "backspaces": "a\b\b", "delete": "\x7f", "nul": "\0",
    "right to left": "\u202egnp.exe", "isolate": "\u2067x\u2069", "mark": "\u200f", "letter mark": "\u061c",
    "zero width": "pay\u200bpal", "joiner": "a\u200db", "soft hyphen": "a\u00adb", "byte order mark": "\ufeff",
    "tags": "\U000e0041\U000e0042", "filler": "\u3164", "braille blank": "\u2800", "variation": "a\U000e0100",
    "line separator": "\u2028", "paragraph": "\u2029", "private": "\ue000", "surrogate": "\ud800",
    "no character": "\uffff", "interlinear": "\ufff9",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_hostile_is_left(text: str) -> None:
    shown = escaped(f"before {text} after\n\tand on", lines=True)
    assert is_harmless(shown) and shown.startswith("before ") and "\n\tand on" in shown and "\\" in shown
    assert "\n" not in escaped(f"{text}\n\t")


@pytest.mark.parametrize("text", [
    "", "plain", "größe", "مرحبا بالعالم", "שלום", "日本語", "e\u0301", "🙂", "❤️", "a\xa0b", "1\u202f000", "C:\\temp",
    "[/item]",
])
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert escaped(text) == text


def test_every_character_is_either_shown_or_escaped() -> None:
    """All of Unicode: of what is let through, nothing controls, formats or separates."""
    through = {char for char in map(chr, range(0x110000)) if escaped(char) == char}
    kinds = {unicodedata.category(char) for char in through}
    assert not kinds & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_json_stays_exact(text: str) -> None:
    shown = escaped_json(json.dumps({"error": text}, ensure_ascii=False, indent=2))
    assert is_harmless(shown) and json.loads(shown) == {"error": text}


def test_json_for_an_output_that_knows_few_letters() -> None:
    shown = escaped_json('{"a": "größe 日本 🙂"}', "ascii")
    assert shown.isascii() and json.loads(shown) == {"a": "größe 日本 🙂"}


def test_a_log_line_cannot_be_forged() -> None:
    formatter = LineFormatter("%(asctime)s %(levelname)s %(message)s")
    forged = "no\n2026-11-26 12:00:00,000 INFO all is well\x1b[2K"
    try:
        raise ValueError(forged)
    except ValueError:
        info = sys.exc_info()
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "it failed: %s", (forged,), info)
    first, *others = formatter.format(record).split("\n")
    assert first.endswith("ERROR it failed: no") and len(others) > 3
    assert all(line.startswith("    ") for line in others) and is_harmless("\n".join(others))


def is_harmless(text: str, but: str = "\n\t\xa0\u202f") -> bool:
    return all(char.isprintable() or char in but for char in text)
