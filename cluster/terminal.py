"""Where text leaves for a terminal. Nothing else prints (tests/test_tidy.py): what comes from jobs, from clients or
from the store is escaped here, and never read as markup.
"""

from __future__ import annotations

import io
import sys
from typing import TextIO

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rota.client.escape import escaped, escaped_json

PIPED_WIDTH = 200


def prepare() -> None:
    """What a terminal's encoding does not have is escaped, too."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def console(stream: TextIO | None = None) -> Console:
    """One that takes text as it is: no markup, no emoji, no colours of its own. Lines are never cut or wrapped: a
    terminal wraps by itself, and programs read lines."""
    return Console(file=stream, markup=False, emoji=False, highlight=False, soft_wrap=True)


def styled(*parts: str | tuple[str, str], lines: bool = False) -> Text:
    """Text in parts, each plain or (text, style). `lines`: line ends are meant."""
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((escaped(text, lines=lines), style) for text, style in pairs))


def say(*parts: str | tuple[str, str], lines: bool = False) -> None:
    console().print(styled(*parts, lines=lines))


def complain(text: str) -> None:
    """On stderr."""
    print(escaped(text, lines=True), file=sys.stderr)   # noqa: T201 - this is the place


def say_json(value: object) -> None:
    """For programs: exact, and still harmless to look at."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    print(escaped_json(text, sys.stdout.encoding or "utf-8"))    # noqa: T201


class Sheet:
    """A table for people. A `>` at the end of a column's name: numbers, to the right."""

    def __init__(self, *columns: str) -> None:
        self._table = Table(box=None, pad_edge=False, header_style="dim")
        for column in columns:
            right = column.endswith(">")
            self._table.add_column(column.rstrip(">"), justify="right" if right else "left", overflow="fold")

    def add(self, *cells: str | tuple[str, str]) -> None:
        self._table.add_row(*(styled(cell) for cell in cells))

    def show(self, nothing: str) -> None:
        """Only a terminal has a width to keep to."""
        if not self._table.rows:
            say(nothing)
            return
        shown = Console(markup=False, emoji=False, highlight=False)
        if not shown.is_terminal:
            shown.width = PIPED_WIDTH
        shown.print(self._table)


