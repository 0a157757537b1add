"""What every node keeps in mind of the cluster: its members, its master, its tasks. From one list and a few watches."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from rota.client.errors import Compacted
from rota.client.model import Mode

from ..cancellation import apart
from ..ledger.ledger import Event, Ledger, Page, Record, prefix_end
from ..ledger.patience import patiently
from .keys import Keys
from .records import Member, QueueRecord, TaskRecord, decode

T = TypeVar("T")


class Directory:
    """Kept up to date by `run()`; `revision` is the newest store revision it has seen."""

    def __init__(self, ledger: Ledger, keys: Keys) -> None:
        self._ledger = ledger
        self._keys = keys
        self.revision = 0
        self.members: dict[str, Member] = {}
        self.candidates: dict[bytes, tuple[int, str]] = {}
        self.tasks: dict[str, TaskRecord] = {}
        self.queues: dict[str, QueueRecord] = {}
        self.listed = asyncio.Event()

    @property
    def master(self) -> str:
        """The node that is master, or "" between two."""
        return min(self.candidates.values())[1] if self.candidates else ""

    async def run(self) -> None:
        while True:
            try:
                await apart(self._follow(), "directory-follow")
            except* Compacted:
                pass

    async def _follow(self) -> None:
        """List everything, then watch."""
        prefixes = (self._keys.nodes, self._keys.master, self._keys.tasks, self._keys.queues)
        revision = 0
        found: list[Record] = []
        for prefix in prefixes:
            page = await self._list(prefix, revision)
            revision = page.revision
            found += page.records
        for table in (self.members, self.candidates, self.tasks, self.queues):
            table.clear()       # only now: who asks meanwhile gets what was known before
        for record in found:
            self._apply(Event(False, record))
        self.revision = max(self.revision, revision)
        self.listed.set()
        async with asyncio.TaskGroup() as group:
            for prefix in prefixes:
                group.create_task(self._watch(prefix, revision + 1), name="directory-watch")

    async def _list(self, prefix: bytes, revision: int) -> Page:
        return await patiently(lambda: self._ledger.read(prefix, prefix_end(prefix), revision=revision))

    async def _watch(self, prefix: bytes, revision: int) -> None:
        async with self._ledger.watch(prefix, prefix_end(prefix), from_revision=revision) as watch:
            async for changes in watch:
                for event in changes.events:
                    self._apply(event)
                self.revision = max(self.revision, changes.revision)

    def _apply(self, event: Event) -> None:
        record, keys = event.record, self._keys
        if record.key.startswith(keys.master):
            if event.deleted:
                self.candidates.pop(record.key, None)
            else:
                self.candidates[record.key] = (record.create_revision, record.value.decode(errors="replace"))
        elif record.key.startswith(keys.nodes):
            name = record.key[len(keys.nodes):].decode(errors="replace")
            self._keep(self.members, name, None if event.deleted else decode(Member, record.value))
        elif record.key.startswith(keys.queues):
            name = record.key[len(keys.queues):].decode(errors="replace")
            self._keep(self.queues, name, None if event.deleted else decode(QueueRecord, record.value))
        else:
            name = record.key[len(keys.tasks):].decode(errors="replace")
            self._keep(self.tasks, name, None if event.deleted else decode(TaskRecord, record.value))

    @staticmethod
    def _keep(table: dict[str, T], name: str, value: T | None) -> None:
        if value is None:
            table.pop(name, None)
        else:
            table[name] = value

    async def task_mode(self, task: str) -> Mode | None:
        """How a registered task runs; asks the store itself before it says that there is none."""
        known = self.tasks.get(task)
        if known is None:
            page = await self._ledger.read(self._keys.task(task))
            known = decode(TaskRecord, _value(page.records)) if page.records else None
        return known.mode if known is not None else None


def _value(records: tuple[Record, ...]) -> bytes:
    return records[0].value
