"""Applications that log with structlog and with loguru, as docs/tasks.md says."""

import logging
import os
import sys

import rota

HOW = os.environ.get("LOGGED", "")

if HOW == "structlog":
    import structlog

    def with_job(_logger, _method, event):
        if (job := rota.current_job()) is not None:
            event["job"] = job.id
        return event

    logging.basicConfig(level="INFO", format="%(message)s")
    structlog.configure(
        processors=[with_job, structlog.stdlib.add_log_level, structlog.processors.JSONRenderer(sort_keys=True)],
        logger_factory=structlog.stdlib.LoggerFactory(), wrapper_class=structlog.stdlib.BoundLogger,
    )
    log = structlog.get_logger("shop")
elif HOW == "loguru":
    from loguru import logger as log

    def with_job(record):
        job = rota.current_job()
        record["extra"]["job"] = "-" if job is None else job.id

    class ToLoguru(logging.Handler):                    # what others log, and what rota says of a job
        def emit(self, record):
            log.opt(depth=6, exception=record.exc_info).log(record.levelname, record.getMessage())

    logging.basicConfig(handlers=[ToLoguru()], level="INFO")
    log.configure(
        handlers=[{"sink": sys.stderr, "format": "MINE {level} [{extra[job]}] {message}"}], patcher=with_job
    )
else:
    log = logging.getLogger("shop")


@rota.task(max_attempts=1, keep_log=5)
def say(order):
    log.info("billing")
    if order == 13:
        raise ValueError("no")


@rota.task(max_attempts=1)
async def asay(order):
    log.info("billing")
