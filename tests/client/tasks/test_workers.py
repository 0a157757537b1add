"""Workers as classes."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import Any

import pytest

import rota
from rota.client.calls import default
from rota.client.calls.handle import JobHandle
from rota.client.calls.order import Order
from rota.client.errors import ConfigError, InvalidJob
from rota.client.tasks.task import registry


class Welcome(rota.Worker, queue="emails", retries=5):
    def perform(self, address: str, *, times: int = 1) -> str:
        return f"{address} {times} {type(self).__name__}"


class Later(rota.Worker, max_attempts=1):
    async def perform(self, *numbers: int) -> int:
        return sum(numbers)


class Recorder:
    """A default client that only remembers."""

    def __init__(self) -> None:
        self.orders: list[Order] = []

    def place(self, order: Order) -> JobHandle[Any]:
        self.orders.append(order)
        return JobHandle(self, "b", 0)  # type: ignore[arg-type]

    def close(self) -> None: ...


@pytest.fixture
def recorder() -> Any:
    made = Recorder()
    default.replace(made)  # type: ignore[arg-type]
    yield made
    default.replace(None)


def test_class_options() -> None:
    info = Welcome.task.info
    assert (info.name, info.mode, info.queue, info.max_attempts) == (f"{__name__}:Welcome", "sync", "emails", 6)
    assert (Later.task.info.mode, Later.task.info.max_attempts) == ("async", 1)
    assert registry[f"{__name__}:Welcome"] is Welcome.task and not Welcome.task.by_value


def test_performing() -> None:
    assert Welcome.task("ann", times=2) == "ann 2 Welcome"
    with pytest.raises(StopIteration, match="6"):
        Later.task(1, 2, 3).send(None)


def test_enqueueing(recorder: Recorder) -> None:
    Welcome.perform_async("ann")
    Welcome.perform_in(10, "bob", times=3)
    Welcome.perform_in(timedelta(seconds=3), "eve")
    assert [order.route.delay_s for order in recorder.orders] == [0.0, 600.0, 3.0]
    assert {order.route.queue for order in recorder.orders} == {"emails"}
    assert pickle.loads(recorder.orders[1].payload) == (("bob",), {"times": 3})      # noqa: S301 - our own bytes
    with pytest.raises(InvalidJob, match=r"Welcome\(address: .*missing"):
        Welcome.perform_async()
    with pytest.raises(InvalidJob, match="at least 0"):
        Welcome.perform_in(-1, "ann")


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match="has no perform"):
        type("Idle", (rota.Worker,), {})
    with pytest.raises(ConfigError, match="say the same thing"):
        type("Twice", (rota.Worker,), {"perform": lambda self: None}, retries=1, max_attempts=2)

    class Base(rota.Worker, abstract=True):
        """Only derived from."""

    assert not hasattr(Base, "task")
