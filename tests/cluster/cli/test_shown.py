"""What commands print: whatever jobs, clients and the store say, it is text and nothing else."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from rota.client import errors
from rota.client.wire.views import FailedView, FinishedView, JobView, NodeView, QueueView
from rota.cluster import terminal
from rota.cluster.cli import app, show
from rota.cluster.demo.observer import Seen
from rota.cluster.demo.screen import Picture, Screen

from ...client.test_escape import is_harmless

EVIL = "\x1b[31m\x1b]0;t\x07\x9b2J\u202egnp\u200b[/item][bold]:smile:[link=x]\r\nforged"

VIEWS: dict[str, tuple[Callable[[Any], None], Any]] = {
    "nodes": (show.nodes, [NodeView(EVIL, EVIL, EVIL, False, [EVIL], [EVIL], {EVIL: 1}, 0, EVIL, EVIL, 0.0)]),
    "queues": (show.queues, [QueueView(EVIL, 1, blocked=EVIL, why=EVIL)]),
    "failed": (show.failed, [FailedView(EVIL, EVIL, EVIL, EVIL, 1, EVIL, 0.0), FailedView(
        EVIL, EVIL, EVIL, EVIL, 1, EVIL, 0.0, "blocked")]),
    "finished": (show.finished, [FinishedView(EVIL, EVIL, EVIL, 1, EVIL, 0.0)]),
    "job": (show.job, JobView(EVIL, "failed", EVIL, EVIL, 1, EVIL, EVIL, error=EVIL, traceback=EVIL)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_it, view = VIEWS[name]
    print_it(view)
    shown = capsys.readouterr().out
    assert is_harmless(shown, "\n") and "[bold]:smile:" in shown and "\\x1b[31m" in shown
    assert not any(line.startswith("forged") for line in shown.splitlines()) or name == "job"   # a traceback has lines


@pytest.mark.parametrize("name", VIEWS)
def test_views_as_json_are_exact(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    show.as_json(VIEWS[name][1])
    shown = capsys.readouterr().out
    assert is_harmless(shown, "\n") and EVIL in strings(json.loads(shown))


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in (*value.values(), *value) for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def test_errors(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise errors.InvalidJob(EVIL)

    monkeypatch.setattr(app, "app", fails)
    with pytest.raises(SystemExit):
        app.main()
    assert is_harmless(capsys.readouterr().err)


def test_the_demos_screen() -> None:
    for colours in (False, True):
        out = io.StringIO()
        console = Console(file=out, force_terminal=colours, markup=False, width=120, color_system=None)
        screen = Screen(console)
        screen.say(1.0, EVIL, "red")
        picture = Picture(EVIL, 1.0, [Seen(EVIL, address=EVIL)], "", 1, 0, 2)
        screen.show(picture)
        screen.close_with([terminal.styled(EVIL)])
        console.print(screen._render(picture))
        shown = out.getvalue()
        assert "\x1b]0" not in shown and "\x9b" not in shown and "\u202e" not in shown and "\r\n" not in shown
        assert "[/item]" in shown
