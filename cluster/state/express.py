"""What the master lends: that an enqueue may bring its own claim along, where nothing stands before it.

The record is the master's word on what waits, so that nodes do not even try to go past it; it lies on the master's
lease and ends with it. That a bundle may begin is for the transaction itself to see: `ahead_of_nothing`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from rota.client.model import Text

from ..ledger.commits import created, unmodified
from ..ledger.ledger import Condition, Target, prefix_end
from .keys import Keys
from .records import Schema, TaskRecord, schema

QUEUES_MAX = 64
"""Queues that are named; of more, all are closed."""


class ExpressRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """`closed`: jobs wait for slots, whatever their queue; nothing goes past them. `queues`: in these some wait that
    cannot run now, for another reason."""

    closed: bool = False
    queues: Annotated[tuple[Text, ...], Meta(max_length=QUEUES_MAX)] = ()
    v: Schema = msgspec.field(default_factory=schema)

    def admits(self, queue: str) -> bool:
        return not self.closed and queue not in self.queues


def is_plain(task: TaskRecord) -> bool:
    """Whether nothing but a slot decides when its jobs begin."""
    return task.weight == 1 and not task.requires and task.on_orphan == "requeue" and all(
        limit is None for limit in (task.max_concurrency, task.max_per_key, task.rate, task.rate_per_key)
    )


def ahead_of_nothing(
    keys: Keys, node: str, queue: str, task: str, *, lent_at: int, task_at: int
) -> tuple[Condition, ...]:
    """What must be so for a bundle to begin with its enqueue: the master's word (`lent_at`) and the task (`task_at`)
    are as they were seen, its queue has no settings, nothing waits there, and its node has nothing else. The cheap
    ones come first: the store stops at the first that is false."""
    return (
        unmodified(keys.express, lent_at), unmodified(keys.task(task), task_at), created(keys.queue(queue), 0),
        _nothing_in(keys.claims_of(node)), _nothing_in(keys.queue_jobs(queue)),
    )


def _nothing_in(prefix: bytes) -> Condition:
    return Condition(prefix, Target.CREATE, "==", 0, prefix_end(prefix))
