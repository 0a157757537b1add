"""Tasks that fork."""

import asyncio
import multiprocessing
import os
import sys

from jobs import mark

import rota


def child_status(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def forked_child(how):
    if how == "raise":
        raise ValueError("in the child")
    if how == "retry":
        raise rota.Retry(after=1)
    if how == "_exit":
        os._exit(9)
    if how == "text":
        sys.exit("bad")
    if how != "return":
        sys.exit(None if how == "exit" else int(how))
    return "child"


@rota.task(max_attempts=1)
def fork(how):
    pid = os.fork()
    return forked_child(how) if pid == 0 else child_status(pid)


@rota.task(max_attempts=1)
async def afork(how):
    pid = os.fork()
    return forked_child(how) if pid == 0 else child_status(pid)


@rota.task(max_attempts=1)
async def afork_and_await(path, how):
    """The child comes back to the loop, where a neighbour is ready to go on."""
    async def neighbour():
        for _ in range(50):
            mark(path, os.getpid())
            await asyncio.sleep(0)

    async def helper():
        await asyncio.sleep(0)
        pid = os.fork()
        if pid == 0 and how == "raise":
            raise ValueError("in the child")
        if pid == 0:
            await asyncio.sleep(0)
            mark(path, "went on")
        return pid

    beside = asyncio.create_task(neighbour())
    pid = await (helper() if how == "direct" else asyncio.create_task(helper()))
    await beside
    return child_status(pid)


@rota.task(max_attempts=1)
def with_processes(x):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-x, x])
