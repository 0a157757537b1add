"""Tasks with middleware, a resource and a model. (Who imports this has the middleware in its tests, too, unless it
takes it out.)"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel

import rota

told: list[str] = []
paid: list[dict[str, str]] = []


class Sum(BaseModel):
    cents: int


def stamp(job: rota.Outgoing) -> None:
    job.headers["stamp"] = "yes"


@contextmanager
def note(job: rota.JobContext) -> Iterator[None]:
    told.append("in")
    yield
    told.append("out")


def till() -> Iterator[str]:
    told.append("till open")
    yield "till"
    told.append("till shut")


def _headers() -> dict[str, str]:
    job = rota.current_job()
    assert job is not None
    paid.append(dict(job.headers))
    return paid[-1]


@rota.task
def pay(total: Sum, *, into: str = rota.Depends(till)) -> tuple[str, int, Any]:
    return into, total.cents, _headers()


@rota.task
async def apay(total: Sum, *, into: str = rota.Depends(till)) -> tuple[str, int, Any]:
    return into, total.cents, _headers()


class Paying(rota.Worker):
    def perform(self, total: Sum, *, into: str = rota.Depends(till)) -> tuple[str, int]:
        return into, total.cents
