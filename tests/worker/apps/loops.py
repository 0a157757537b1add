"""`async def` tasks that are trouble for those beside them on the event loop."""

import asyncio
import contextlib
import os
import signal
import sys
import time

import jobs
from jobs import mark

import rota


@rota.task(max_attempts=1)
async def leave_by(way):
    """What would end a program of its own."""
    loop = asyncio.get_running_loop()

    async def helper():
        await asyncio.sleep(0)
        if way == "interrupt":
            raise KeyboardInterrupt
        sys.exit("config missing")

    if way in ("subtask", "interrupt"):
        await asyncio.gather(helper())
    elif way == "group":
        async with asyncio.TaskGroup() as group:
            group.create_task(helper())
            await asyncio.sleep(600)
    elif way == "thread":
        await asyncio.to_thread(sys.exit, "config missing")
    elif way == "callback":
        loop.call_soon(sys.exit, "config missing")
        await asyncio.sleep(0.05)
    elif way == "stop":
        loop.stop()
        await asyncio.sleep(0.05)
    return way


@rota.task(max_attempts=1, cancel_grace=20)
async def clean_up(path, seconds):
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            mark(path, "interrupted")
            raise
        mark(path, "clean")
        return "cleaned up"


@rota.task(max_attempts=1)
async def crash():
    os.kill(os.getpid(), signal.SIGSEGV)
    await asyncio.sleep(600)


@rota.task(max_attempts=2, backoff_base=5.0)
async def crash_later():
    await asyncio.sleep(0.05)
    os._exit(7)


@rota.task(max_attempts=1)
async def write_garbage():
    jobs.garbage()
    await asyncio.sleep(600)


@rota.task(max_attempts=1)
async def beside(path, word, seconds):
    mark(path, word)
    await asyncio.sleep(seconds)
    return os.getpid()


@rota.task(on_orphan="fail")
async def never_twice(path, word, seconds):
    mark(path, word)
    await asyncio.sleep(seconds)


@rota.task(max_attempts=1)
async def block(seconds):
    time.sleep(seconds)  # noqa: ASYNC251 - that is the harm it does
    return os.getpid()


@rota.task(timeout=0.2, max_attempts=1, cancel_grace=0.2)
async def stubborn():
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)
