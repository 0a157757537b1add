"""What every node keeps in mind of the cluster: its members, its master, its tasks. It follows each of them."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from rota.client.ids import is_task_name
from rota.client.model import Mode

from ..ledger.follow import Listing, follow
from ..ledger.ledger import Event, Ledger
from .express import ExpressRecord
from .keys import Keys
from .records import Member, QueueRecord, TaskRecord, Token, decode

T = TypeVar("T")


class Directory:
    """Kept up to date by `run()`; `revision` is the newest store revision it has seen."""

    def __init__(self, ledger: Ledger, keys: Keys) -> None:
        self._ledger = ledger
        self._keys = keys
        self.revision = 0
        self.members: dict[str, Member] = {}
        self._leases: dict[str, int] = {}           # of the members
        self._candidates: dict[bytes, tuple[int, str, int]] = {}    # (create revision, node, lease)
        self.tasks: dict[str, TaskRecord] = {}
        self.task_revisions: dict[str, int] = {}    # when each was last written
        self.queues: dict[str, QueueRecord] = {}
        self._words: dict[bytes, int] = {}          # the master's word on the express lane, and when he said it
        self.listed = asyncio.Event()
        """All of it has been read once."""

    @property
    def master(self) -> str:
        """The node that is master, or "" between two. Only a member can be, on the lease of its membership."""
        standing = [
            (revision, node) for revision, node, lease in self._candidates.values() if self._leases.get(node) == lease
        ]
        return min(standing)[1] if standing else ""

    def is_limited(self, task: str, queue: str) -> bool:
        """Whether so many jobs of either may run at a time: then one may wait for another to end."""
        of_task, of_queue = self.tasks.get(task), self.queues.get(queue)
        return (of_task is not None and (of_task.max_concurrency is not None or of_task.max_per_key is not None)) or (
            of_queue is not None and (of_queue.serial or of_queue.max_concurrency is not None)
        )

    @property
    def express(self) -> int:
        """When the master said that jobs may begin with their enqueue; 0: he does not say so."""
        return self._words.get(self._keys.express, 0)

    async def run(self) -> None:
        tables: dict[bytes, tuple[dict[Any, Any], ...]] = {
            self._keys.nodes: (self.members, self._leases), self._keys.master: (self._candidates,),
            self._keys.tasks: (self.tasks, self.task_revisions), self._keys.queues: (self.queues,),
            self._keys.express: (self._words,),
        }
        unlisted = set(tables)
        async with asyncio.TaskGroup() as group:
            for prefix, of_prefix in tables.items():
                group.create_task(self._follow(prefix, of_prefix, unlisted), name="directory-follow")

    async def _follow(self, prefix: bytes, tables: tuple[dict[Any, Any], ...], unlisted: set[bytes]) -> None:
        async with follow(self._ledger, prefix) as news:
            async for seen in news:
                if isinstance(seen, Listing):
                    for table in tables:
                        table.clear()       # only now: who asks meanwhile gets what was known before
                    for record in seen.records:
                        self._apply(Event(False, record))
                    unlisted.discard(prefix)
                    if not unlisted:
                        self.listed.set()
                else:
                    for event in seen.events:
                        self._apply(event)
                self.revision = max(self.revision, seen.revision)

    def _apply(self, event: Event) -> None:
        """Keys that rota did not write, and records that cannot be read, are as good as absent; but settings that were
        known before go on."""
        record, keys = event.record, self._keys
        if record.key.startswith(keys.master):
            self._apply_candidate(event)
        elif record.key.startswith(keys.nodes):
            self._apply_member(event)
        elif record.key.startswith(keys.queues):
            self._keep(self.queues, keys.parse_queue(record.key), event, QueueRecord)
        elif record.key == keys.express:
            self._words.clear()
            if not event.deleted and decode(ExpressRecord, record.value) is not None:
                self._words[record.key] = record.mod_revision
        elif (name := keys.parse_task(record.key)) is not None:
            if self._keep(self.tasks, name, event, TaskRecord):
                self.task_revisions[name] = record.mod_revision
            else:
                self.task_revisions.pop(name, None)     # what is known of it is not what lies there

    def _apply_candidate(self, event: Event) -> None:
        record = event.record
        if not event.deleted and record.lease and self._keys.parse_candidate(record.key) == record.lease:
            name = record.value.decode(errors="replace")
            self._candidates[record.key] = (record.create_revision, name, record.lease)
        else:
            self._candidates.pop(record.key, None)

    def _apply_member(self, event: Event) -> None:
        record = event.record
        name = self._keys.parse_node(record.key)
        member = None if event.deleted or not record.lease else decode(Member, record.value)
        if name is None:
            return
        if member is None:
            self.members.pop(name, None)
            self._leases.pop(name, None)
        else:
            self.members[name], self._leases[name] = member, record.lease

    @staticmethod
    def _keep(table: dict[str, T], name: str | None, event: Event, kind: type[T]) -> bool:
        """Whether the table shows what lies there now (of what cannot be read it shows what was there before)."""
        if name is None:
            return False
        if event.deleted:
            table.pop(name, None)
            return False
        if (value := decode(kind, event.record.value)) is None:
            return False
        table[name] = value
        return True

    def wants(self, token: Token) -> set[str]:
        """The labels that a node must have to run it: those of its enqueue, and those of its task."""
        task = self.tasks.get(token.task)
        of_task = task.requires if task is not None and not token.function else ()
        return {*of_task, *token.requires}

    async def task(self, name: str) -> TaskRecord | None:
        """A registered task; asks the store itself before it says that there is none."""
        known = self.tasks.get(name)
        if known is None and is_task_name(name):
            page = await self._ledger.read(self._keys.task(name))
            known = decode(TaskRecord, page.records[0].value) if page.records else None
        return known

    async def task_mode(self, task: str) -> Mode | None:
        """How a registered task runs; None: there is none."""
        known = await self.task(task)
        return known.mode if known is not None else None
