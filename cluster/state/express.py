"""The express lane: an enqueue brings its own claim along, where nothing stands before it.

That it may be tried at all is the master's word, one record on his lease, which ends with it. That nothing waits before
a bundle its own transaction sees: `ahead_of_nothing`.
"""

from __future__ import annotations

import msgspec

from ..ledger.commits import created, unmodified
from ..ledger.ledger import Condition
from .keys import Keys
from .records import Schema, TaskRecord, schema


class ExpressRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """It is there while no job waits for a slot, and whoever stores jobs puts the flags of their queues."""

    v: Schema = msgspec.field(default_factory=schema)


def is_plain(task: TaskRecord) -> bool:
    """Whether nothing but a slot decides when its jobs begin."""
    return task.weight == 1 and not task.requires and task.on_orphan == "requeue" and all(
        limit is None for limit in (task.max_concurrency, task.max_per_key, task.rate, task.rate_per_key)
    )


def ahead_of_nothing(keys: Keys, queue: str, task: str, *, word_at: int, task_at: int) -> tuple[Condition, ...]:
    """What must be so for a bundle to begin with its enqueue: the master's word (`word_at`) and the task (`task_at`)
    are as they were seen, its queue has no settings, and nothing waits there (`nonempty`)."""
    return (
        unmodified(keys.express, word_at), unmodified(keys.task(task), task_at), created(keys.queue(queue), 0),
        created(keys.flag(queue), 0),
    )
