"""Log records of a runner: lines on stderr, each with the id of the job that wrote it."""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

from .context import current_job_id

FORMAT = "%(asctime)s %(levelname)-7s %(name)s [%(job)s] %(message)s"
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class LineFormatter(logging.Formatter):
    """Escapes control characters and indents further lines: an argument can neither forge a line nor drive a
    terminal."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record).replace("\n", "\n    ")
        return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def install() -> None:
    """Give every record a `job`, and the root logger a handler if the app has not made one."""
    make = logging.getLogRecordFactory()

    def with_job(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.job = current_job_id()
        return record

    logging.setLogRecordFactory(with_job)
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(LineFormatter(FORMAT))
        root.addHandler(handler)
        root.setLevel(logging.INFO)
