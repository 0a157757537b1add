"""Log records of a runner. The application's own logging wins, however and whenever it is set up; where nothing is,
lines go to stderr, each with the id of the job that wrote it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from rota.client import json_log
from rota.client.escape import LineFormatter

from ...channel.frames import Work
from ..context import current_job_id, running
from ..telling import heard

FORMAT = "%(asctime)s %(levelname)-7s %(name)s [%(rota_job)s] %(message)s"


class LastResort(logging.Handler):
    """Takes what no handler of the application's takes. To whatever stderr is at that moment: a job may have put
    another in its place, or closed it."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            if not hasattr(record, "rota_job"):
                record.rota_job = current_job_id()      # a logger of the application's makes its records itself
            line = self.format(record) + "\n"
            try:
                sys.stderr.write(line)
            except (ValueError, OSError, AttributeError):
                os.write(2, line.encode(errors="backslashreplace"))


def install(keep_of: Callable[[Work], int]) -> None:
    """Before the app is imported. Every record carries the id of the job that made it, as `rota_job`. `keep_of` says
    how many lines of a job's log are kept. (Round the factory of records, not as one: an app may set its own.)"""
    make = logging.Logger.makeRecord

    def with_job(logger: logging.Logger, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(logger, *args, **kwargs)
        if not hasattr(record, "rota_job"):
            record.rota_job = current_job_id()
        with contextlib.suppress(Exception):        # a message that does not fit its arguments: logging says so itself
            heard(record, keep_of)
        return record

    logging.Logger.makeRecord = with_job            # type: ignore[method-assign, assignment]
    handler = LastResort()
    is_json = os.environ.get(json_log.VARIABLE) == "json"
    handler.setFormatter(json_log.JsonFormatter(_about) if is_json else LineFormatter(FORMAT))
    logging.lastResort = handler        # not the root's: then the app's basicConfig would do nothing


def _about() -> dict[str, str]:
    job = running.get()
    return {} if job is None else {"task": job[0].task, "queue": job[0].queue}


def settle() -> None:
    """When the app is imported, and its start hooks have run: rota's own words are not lost by a configuration that
    disables loggers it does not name, and INFO is shown unless the app has an opinion."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if (name == "rota" or name.startswith("rota.")) and isinstance(logger, logging.Logger):
            logger.disabled = False
    if not logging.root.handlers and logging.root.level == logging.WARNING:
        logging.root.setLevel(logging.INFO)
