"""An application that sets up its logging in one of all the ways there are."""

import logging
import logging.config
import os

import rota

HOW = os.environ.get("LOGGED", "")
log = logging.getLogger("shop")


def basic():
    logging.basicConfig(level=logging.DEBUG, format="MINE %(levelname)s %(message)s [%(rota_job)s]")


if HOW == "import":
    basic()
elif HOW == "dict":
    logging.config.dictConfig({
        "version": 1,
        "formatters": {"mine": {"format": "MINE %(levelname)s %(message)s [%(rota_job)s]"}},
        "handlers": {"err": {"class": "logging.StreamHandler", "formatter": "mine"}},
        "root": {"level": "DEBUG", "handlers": ["err"]},
        "loggers": {"shop": {}},
    })
elif HOW == "factory":
    def make(*args, **kwargs):
        record = logging.LogRecord(*args, **kwargs)
        record.rota_job = "own factory"
        return record

    logging.setLogRecordFactory(make)
    basic()
elif HOW == "bare factory":
    logging.setLogRecordFactory(logging.LogRecord)
elif HOW == "factory round a factory":
    before = logging.getLogRecordFactory()

    def more(*args, **kwargs):
        record = before(*args, **kwargs)
        record.host = "here"
        return record

    logging.setLogRecordFactory(more)
    basic()


@rota.on_runner_start
def start():
    if HOW == "hook":
        basic()


@rota.task(max_attempts=1, keep_log=10)
def say(order):
    if HOW == "job":
        basic()
        logging.setLogRecordFactory(logging.LogRecord)
    log.debug("debug of %s", order)
    log.warning("billing", extra={"job": order, "order": order, "task": "x", "queue": "y", "attempt": 1})
    return [type(handler).__name__ for handler in logging.root.handlers]


@rota.task(max_attempts=1)
def fails():
    raise ValueError("no")
