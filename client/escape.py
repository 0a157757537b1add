"""Text for a terminal or a log. Whoever wrote it, it stays text: it can neither drive a terminal, nor reorder or hide
what stands around it, nor forge a line. Standard library only. (docs/decisions/0021)
"""

from __future__ import annotations

import logging
import re
import unicodedata

_HIDDEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\ufe00-\ufe0e\uffa0\U000e0100-\U000e01ef]")
"""Printable by their category, and yet nothing to see: fillers, joiners, variation selectors (but that of emoji)."""


def escaped(text: str, *, lines: bool = False) -> str:
    """The same text, with every character that is not simply shown written as in a Python string (`\\x1b`, `\\u202e`):
    controls (C0, C1), format characters (bidi marks, zero widths, tags), separators, surrogates, private and unassigned
    ones. `lines`: line ends and tabs stay."""
    if text.isprintable() and _HIDDEN.search(text) is None:
        return text
    return "".join(char if _is_shown(char) or (lines and char in "\n\t") else _code(char) for char in text)


def escaped_json(text: str, encoding: str = "utf-8") -> str:
    """JSON that means the same, to the last character, and can be shown, and written in this encoding: JSON has escapes
    of its own."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if (_is_shown(char) or char in "\n\t") and _fits(char, encoding) else _utf16(char) for char in text
    )


def _is_shown(char: str) -> bool:
    return (char.isprintable() and _HIDDEN.match(char) is None) or unicodedata.category(char) == "Zs"


def _fits(char: str, encoding: str) -> bool:
    try:
        return char.isascii() or bool(char.encode(encoding))
    except UnicodeEncodeError:
        return False


def _code(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _utf16(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


class LineFormatter(logging.Formatter):
    """A log record as lines. What follows the first (of a message, or of a traceback) is indented, so that nobody's
    text looks like a record of its own."""

    def format(self, record: logging.LogRecord) -> str:
        return escaped(super().format(record).replace("\n", "\n    "), lines=True)
