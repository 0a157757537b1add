"""Tasks that return what is still to be awaited, or iterated over."""

import asyncio
import functools

import rota


async def later(x):
    await asyncio.sleep(0)
    return x + 1


@rota.task(max_attempts=3)
def hands_over(x):
    return later(x)


@rota.task(max_attempts=3)
def hands_over_a_partial(x):
    return functools.partial(later, x)()


@rota.task(max_attempts=3)
def hands_over_twice(x):
    async def outer():
        return later(x)

    return outer()


@rota.task(max_attempts=3)
async def ahands_over(x):
    return later(x)


@rota.task(max_attempts=1)
def fails_later(x):
    async def fails():
        raise ValueError(x)

    return fails()


def numbers(x):
    yield x


@rota.task(max_attempts=3)
def generates(x):
    return numbers(x)


@rota.task(max_attempts=3)
async def agenerates(x):
    async def anumbers():
        yield x

    return anumbers()


@rota.task(max_attempts=5)
async def awaits_several(x):
    async def one():
        return await (await hands_over.aenqueue(x)).aresult(timeout=60)

    async with asyncio.TaskGroup() as group:
        group.create_task(one())
        group.create_task(one())


@rota.task(max_attempts=5)
def looks_up(x):
    handle = hands_over.enqueue(x)
    return handle.cancel()


@rota.task(max_attempts=5)
def hands_a_handle(x):
    return hands_over.enqueue(x)


@rota.task(max_attempts=5)
async def ahands_a_handle(x):
    return await hands_over.aenqueue(x)
