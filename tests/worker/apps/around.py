"""Tasks with something round them."""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel

import rota

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
told: list[str] = []


def tell(text: str) -> None:
    told.append(text)
    if "AROUND_LOG" in os.environ:
        with Path(os.environ["AROUND_LOG"]).open("a") as file:
            file.write(text + "\n")


@rota.around_job
@contextmanager
def tenancy(job: rota.JobContext) -> Iterator[None]:
    token = tenant.set(job.headers.get("tenant", "none"))
    tell("tenant in")
    try:
        yield
    except ZeroDivisionError as error:
        tell(f"tenant saw {type(error).__name__}")
        raise
    finally:
        tell("tenant out")
        tenant.reset(token)


@rota.around_job(order=1)
async def who(job: rota.JobContext) -> None:
    await asyncio.sleep(0)
    user.set(job.headers.get("user", "none"))


@rota.around_job(order=2)
async def span(job: rota.JobContext) -> AsyncIterator[None]:
    tell("span in")
    yield
    tell("span out")


def engine() -> Iterator[str]:
    tell("engine made")
    yield f"engine {os.getpid()}"
    tell("engine gone")


made = 0


async def slow() -> str:
    global made
    made += 1
    await asyncio.sleep(0.02)
    return f"slow {made}"


async def session(of: str = rota.Depends(engine)) -> AsyncIterator[str]:
    try:
        yield f"session on {of}"
        tell("committed")
    except BaseException:
        tell("rolled back")
        raise


def broken() -> int:
    raise OSError("no such host")


class Item(BaseModel):
    id: int


@rota.task
def plain(fail: bool = False, *, db: str = rota.Depends(session, scope="job")) -> tuple[str, str, str]:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return tenant.get(), user.get(), db if not fail else str(1 / 0)
    raise AssertionError("a loop runs")


@rota.task
async def coroutine(fail: bool = False, *, db: str = rota.Depends(session, scope="job")) -> tuple[str, str, str]:
    return tenant.get(), user.get(), db if not fail else str(1 / 0)


@rota.task
async def shared(one: str = rota.Depends(slow)) -> str:
    return one


@rota.task(max_attempts=3)
def hopeless(db: int = rota.Depends(broken)) -> None: ...


@rota.task
def model(item: Item) -> Item:
    assert isinstance(item, Item)
    return Item(id=item.id + 1)


@rota.task
async def forever(*, db: str = rota.Depends(session, scope="job")) -> None:
    tell("waits")
    await asyncio.sleep(600)
