"""A log record as a line of JSON: one line, whatever it says."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from rota.client.json_log import JsonFormatter
from rota.cluster.events import log as event_log
from rota.cluster.events import records as r
from rota.cluster.events.hub import Events

EVIL = "\x1b[31m\r\n{\"forged\": true}\u2028\ud800"


def line(record: logging.LogRecord, **about: str) -> dict[str, Any]:
    text = JsonFormatter(lambda: about).format(record)
    assert text.isascii() and "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def record(message: str, *arguments: object, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("rota.x", logging.WARNING, "x.py", 1, message, arguments, None)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_a_line_says_who_when_and_what() -> None:
    found = line(record("took %d s", 3, rota_job="k-1/0"), node="n-1")
    assert (found["level"], found["logger"], found["message"]) == ("warning", "rota.x", "took 3 s")
    assert (found["job"], found["node"]) == ("k-1/0", "n-1") and found["at"].endswith("Z")
    assert "job" not in line(record("no job", rota_job="-")) and "event" not in line(record("plain"))


def test_text_of_others_forges_no_line() -> None:
    assert line(record("%s", EVIL))["message"] == EVIL


def test_what_does_not_fit_is_told_all_the_same() -> None:
    assert "do not fit" in line(record("%d %d", 1))["message"]
    assert line(record("x", fields={"odd": object}))["fields"]["odd"].startswith("<class")


def test_a_traceback_is_a_field() -> None:
    try:
        raise ValueError(EVIL)
    except ValueError as error:
        made = record("it broke")
        made.exc_info = (type(error), error, error.__traceback__)
    assert "ValueError" in line(made)["traceback"]


def test_events_have_their_stable_name_and_fields(caplog: pytest.LogCaptureFixture) -> None:
    events = Events()
    event_log.attach(events)
    with caplog.at_level(logging.INFO):
        events.emit(r.TookOver("n-2", 3, 0.25))
    found = line(caplog.records[-1])
    assert (found["event"], found["fields"]) == ("took_over", {"node": "n-2", "claims": 3, "duration_s": 0.25})
