"""Batch tasks that end in all the ways there are."""

import os
import signal
import time
from pathlib import Path

import rota


@rota.task(batch=8, batch_wait=0.2, max_attempts=1)
def double(numbers):
    return [number * 2 for number in numbers]


@rota.task(batch=8, batch_wait=0.2, max_attempts=3, backoff_base=0.01)
def dies_once(flags):
    """Takes its runner along, the first time."""
    for flag in flags:
        if not Path(flag).exists():
            Path(flag).touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return [len(flags)] * len(flags)


@rota.task(batch=8, batch_wait=0.1, max_attempts=1, timeout=0.4, cancel_grace=0.2)
def stuck(items):
    time.sleep(600)


@rota.task(batch=8, batch_wait=0.1, max_attempts=1)
async def whose(items):
    return [rota.current_job() is None for _ in items]
