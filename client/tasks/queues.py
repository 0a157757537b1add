"""Queues that are declared in code. Most need no declaration: a queue exists from its first job on."""

from __future__ import annotations

from ..errors import ConfigError, InvalidJob
from ..model import ON_FULLS, OnFull, QueueInfo
from ..options import rates
from ..options.checks import limit, one_of, queue_name

declared: dict[str, QueueInfo] = {}
"""All queues that this process has declared, for the nodes that import it."""


class Queue(str):
    """A queue's name, with settings of its own. Nodes write them to the cluster when they start, a client before it
    enqueues there for the first time.

        payments = rota.Queue("payments", serial=True)

        @rota.task(queue=payments)
        def charge(order: int) -> None: ...

    serial: one job at a time, in the order of the enqueues; the next one begins when the one before has *succeeded*.
        A job that fails for good blocks its queue until somebody retries or skips it.
    max_concurrency: how many of the queue's jobs may run at a time in the whole cluster.
    rate: how many may begin in a time, as in "100/minute" or "5/10s, burst 20", in the whole cluster.
    max_waiting: how many jobs may wait in it. An enqueue beyond that raises `QueueFull` (`on_full="refuse"`, the
        default), or waits for room as long as its retry window lasts (`on_full="wait"`).

    The code is the source of truth for what it says; where code differs, the last process to start wins. What it leaves
    out, and whether the queue is paused, is the operators' business (`rota queue set`). Raises `InvalidJob`, and
    `ConfigError` for two declarations that disagree.
    """

    serial: bool | None
    max_concurrency: int | None

    def __new__(
        cls, name: str, *, serial: bool | None = None, max_concurrency: int | None = None, rate: str | None = None,
        max_waiting: int | None = None, on_full: OnFull | None = None,
    ) -> Queue:
        queue = super().__new__(cls, queue_name(name))
        if serial not in (None, True, False):
            raise InvalidJob(f"serial {serial!r:.40} is not valid: True or False, or None to leave it to the operators")
        queue.serial = serial
        queue.max_concurrency = limit(max_concurrency, "max_concurrency")
        if on_full is not None and max_waiting is None:
            raise InvalidJob("on_full says what becomes of enqueues beyond max_waiting=…, which is not given")
        info = QueueInfo(
            str(queue), serial, queue.max_concurrency, rates.normal(rate), limit(max_waiting, "max_waiting"),
            None if on_full is None else one_of(on_full, ON_FULLS, "on_full"),
        )
        if declared.setdefault(info.name, info) != info:
            raise ConfigError(f"queue {info.name} is declared twice, with different settings")
        return queue
