"""A log record as a line of JSON, for programs that read logs (`--log-format json`). Standard library only.

Every line has `at` (UTC), `level`, `logger` and `message`; where they are known `job`, `task` and `node`; of an event
its stable name as `event`, and its `fields`; of an exception its `traceback`. JSON escapes what is not plain: nobody's
text can forge a line.
"""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Callable

VARIABLE = "ROTA_LOG_FORMAT"
"""The environment variable that says it to all processes of a node."""


class JsonFormatter(logging.Formatter):
    """`about`: what else each line says, as it is then."""

    def __init__(self, about: Callable[[], dict[str, str]] = dict) -> None:
        super().__init__()
        self._about = about

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, object] = {
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"), "level": record.levelname.lower(),
            "logger": record.name, "message": _message(record),
        }
        line.update(self._about())
        job = getattr(record, "rota_job", "-")
        if job != "-":
            line["job"] = job
        for name in ("event", "fields"):
            if hasattr(record, name):
                line[name] = getattr(record, name)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:
        return f"{record.msg!s} (its arguments do not fit: {error})"
