"""Log records of a runner: lines on stderr, each with the id of the job that wrote it."""

from __future__ import annotations

import logging
import sys
from typing import Any

from rota.client.escape import LineFormatter

from .context import current_job_id

FORMAT = "%(asctime)s %(levelname)-7s %(name)s [%(job)s] %(message)s"


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
