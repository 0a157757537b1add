"""Hooks: what they do is written to the file $HOOKS, one word a line."""

import asyncio
import os
import time
from pathlib import Path

import rota
from rota.worker.runner.hooks import on_runner_start, on_runner_stop


def note(word):
    with Path(os.environ["HOOKS"]).open("a") as file:
        file.write(f"{word}\n")


@on_runner_start
def first():
    note("start")


@on_runner_start
async def second():
    await asyncio.sleep(0)
    note("astart")


@on_runner_stop
def last():
    note("stop")


@on_runner_stop
async def before_last():
    note("astop")


@rota.task(max_attempts=1)
def nothing():
    note("job")


@rota.on_error
def tell(error):
    job = rota.current_job()
    note(f"{job.task.partition(':')[2]}@{job.attempt}:{type(error).__name__}")
    if os.environ.get("HOOK_KILLS"):
        os._exit(9)


@rota.task(timeout=0.2, max_attempts=1)
def too_slow():
    time.sleep(600)


@rota.task(max_attempts=1)
def crash():
    os._exit(7)


@rota.task(max_attempts=1)
async def acrash():
    os._exit(7)


@rota.task(max_attempts=2, backoff_base=5)
def crash_twice():
    os._exit(7)


@rota.task(max_attempts=1)
def fail():
    raise ValueError("no")


@rota.task(max_attempts=1, cancel_grace=0.1)
def deaf():
    time.sleep(600)
