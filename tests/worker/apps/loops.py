"""`async def` tasks that are trouble for those beside them on the event loop."""

import asyncio
import sys

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
