"""Hooks: what they do is written to the file $HOOKS, one word a line."""

import asyncio
import os
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
