"""Levels of persistence below `durable`: jobs that start at once, and what they cannot be combined with."""

from __future__ import annotations

from rota.client.errors import EnqueueError, InvalidJob, Overloaded
from rota.client.model import Enqueue, Mode

from ...state.directory import Directory
from ...state.records import QueueRecord
from ..membership.own_record import OwnRecord

DURABLE_ONLY = ("unique", "expires_s", "after", "requires", "weight", "fair_key", "rate_key")
"""Terms of an enqueue that what starts at once cannot keep."""


class Levels:
    """What this node may begin at once."""

    def __init__(self, directory: Directory, record: OwnRecord) -> None:
        self._directory = directory
        self._record = record

    def refusal(self, bundle: Enqueue, settings: QueueRecord | None) -> InvalidJob | None:
        """What starts at once cannot wait for a limit, for its turn or for a time. (A repeat may find other settings
        than the first try, which was stored: it is not refused.)"""
        if bundle.level == "durable":
            return None
        task = self._directory.tasks.get(bundle.task)
        limited = task is not None and (task.weight > 1 or any(limit is not None for limit in (
            task.max_concurrency, task.max_per_key, task.rate, task.rate_per_key
        )))
        if bundle.terms is not None and any(getattr(bundle.terms, name) for name in DURABLE_ONLY):
            return InvalidJob(
                f"what is unique, expires, waits for others, or has a weight, labels, a fair or a rate key is stored "
                f"durably; persistence level {bundle.level!r} is not (task {bundle.task})"
            )
        if limited or bundle.delay_s or (settings is not None and settings != QueueRecord()):
            return InvalidJob(
                f"persistence level {bundle.level!r} starts a job at once: it cannot be combined with a delay, a "
                f"limit, or a queue that is serial, paused or limited (task {bundle.task}, queue {bundle.queue})"
            )
        return None

    def own_mode(self, bundle: Enqueue) -> Mode | None:
        """How this node runs it; None if it does not: what is `delayed` waits in its queue then, for one that does."""
        member = self._record.member
        if not member.serves(bundle.queue) or not member.slots(bundle):
            return None
        return member.mode_of(bundle)

    def not_here(self, bundle: Enqueue) -> EnqueueError | None:
        """What is never stored runs here, or is refused. (Code that is shipped always is.)"""
        if bundle.function or self.own_mode(bundle) is not None:
            return None
        if any(member.serves(bundle.queue) and member.slots(bundle) for member in self._directory.members.values()):
            return Overloaded(f"this node does not run task {bundle.task[:200]}, others do; try another", 0.05)
        return InvalidJob(
            f"persistence level 'none' needs a node that runs task {bundle.task[:200]}: no node that serves queue "
            f"{bundle.queue} has its code, and slots for it"
        )
