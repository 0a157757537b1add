"""Where text leaves for a terminal. Nothing else prints (tests/test_tidy.py): what comes from jobs, from clients or
from the store is escaped here, and never read as markup.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from typing import NoReturn, TextIO

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rota.client.escape import escaped, escaped_json

PIPED_WIDTH = 200


NOBODY_READS = 128 + signal.SIGPIPE
"""How a command ends when whoever read its output has gone (`rota queues | head -1`), as others do."""


def prepare() -> None:
    """What a terminal's encoding does not have is escaped, too; what was closed goes nowhere."""
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def finish() -> None:
    """Write out what is left, now: at the end of the process a reader that has gone would be a traceback. Raises
    `SystemExit` then."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        nobody_reads()


def nobody_reads() -> NoReturn:
    """Whoever read our output has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    raise SystemExit(NOBODY_READS)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        nobody_reads()


def console(stream: TextIO | None = None) -> Console:
    """One that takes text as it is: no markup, no emoji, no colours of its own. Lines are never cut or wrapped: a
    terminal wraps by itself, and programs read lines."""
    return _Console(file=stream, markup=False, emoji=False, highlight=False, soft_wrap=True)


def styled(*parts: str | tuple[str, str], lines: bool = False) -> Text:
    """Text in parts, each plain or (text, style). `lines`: line ends are meant."""
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((escaped(text, lines=lines), style) for text, style in pairs))


def say(*parts: str | tuple[str, str], lines: bool = False) -> None:
    console().print(styled(*parts, lines=lines))


def complain(text: str) -> None:
    """On stderr."""
    _write(escaped(text, lines=True), sys.stderr)


def say_json(value: object) -> None:
    """For programs: exact, and still harmless to look at."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    _write(escaped_json(text, sys.stdout.encoding or "utf-8"), sys.stdout)


def say_json_line(value: object) -> None:
    """One of a stream."""
    _write(escaped_json(msgspec.json.encode(value).decode(), sys.stdout.encoding or "utf-8"), sys.stdout)


def _write(text: str, stream: TextIO) -> None:
    try:
        print(text, file=stream)
    except BrokenPipeError:
        nobody_reads()


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
        shown = _Console(markup=False, emoji=False, highlight=False)
        if not shown.is_terminal:
            shown.width = PIPED_WIDTH
        shown.print(self._table)


