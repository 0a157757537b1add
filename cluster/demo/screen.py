"""What the demo shows: a live picture on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .. import terminal
from ..terminal import styled
from .observer import Seen

PLAIN_INTERVAL_S = 2.0
NEWS_MAX = 14


@dataclass(frozen=True, slots=True)
class Picture:
    """One moment of the demo. `done` of `total` files have an outcome; `rate` is of the last seconds."""

    phase: str
    at: float
    nodes: Sequence[Seen] = ()
    master: str = ""
    done: int = 0
    failed: int = 0
    total: int = 0
    rate: float = 0.0


class Screen:
    """`with Screen() as screen`: `say` for what happens once, `show` for how things are."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or terminal.console()
        self._live = Live(console=self._console, refresh_per_second=8) if self._console.is_terminal else None
        self._news: list[Text] = []
        self._shown_at = -PLAIN_INTERVAL_S
        self._phase = ""

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, at: float, text: str, style: str = "") -> None:
        line = styled((f"{at:6.2f} s  ", "dim"), (text, style))
        self._news.append(line)
        if not self._live:
            self._console.print(line)

    def show(self, picture: Picture) -> None:
        if self._live:
            self._live.update(self._render(picture))
        elif picture.phase != self._phase or picture.at - self._shown_at >= PLAIN_INTERVAL_S:
            self._phase, self._shown_at = picture.phase, picture.at
            self._console.print(styled(f"{picture.at:6.2f} s  {_line(picture)}"))

    def close_with(self, lines: Sequence[Text]) -> None:
        """The last words, below the picture."""
        if self._live:
            self._live.stop()
            self._live = None
        for line in lines:
            self._console.print(line)

    def _render(self, picture: Picture) -> RenderableType:
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(picture.total or None, picture.done, width=40, pulse=not picture.total),
            styled(_progress(picture)),
        )
        nodes: list[RenderableType] = [_table(picture), ""] if picture.nodes else []
        return Group(styled((f"rota demo: {picture.phase}", "bold")), "", *nodes, bar, "", *self._news[-NEWS_MAX:])


def _table(picture: Picture) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("node", "state", "address"):
        table.add_column(column, min_width=10)
    for column in ("in hand", "finished"):
        table.add_column(column, justify="right")
    for node in picture.nodes:
        state, style = ("member", "green") if node.alive else ("gone", "red")
        if node.alive and node.name == picture.master:
            state, style = "master", "bold yellow"
        in_hand = sum(node.claims.values())
        table.add_row(
            styled(node.name), styled((state, style)), styled(node.address), f"{in_hand:,}", f"{node.finished:,}"
        )
    return table


def _line(picture: Picture) -> str:
    if not picture.done:
        return picture.phase
    nodes = ", ".join(f"{node.name}{'' if node.alive else ' (gone)'} {node.finished:,}" for node in picture.nodes)
    return f"{picture.phase}: {_progress(picture)}" + (f"; {nodes}" if nodes else "")


def _progress(picture: Picture) -> str:
    if not picture.total:
        return ""
    failed = f", {picture.failed} of them do not parse" if picture.failed else ""
    rate = f", {picture.rate:,.0f}/s" if picture.rate else ""
    return f"{picture.done:,} of {picture.total:,} files{failed}{rate}"
