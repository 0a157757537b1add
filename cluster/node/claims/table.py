"""The bundles that lie under one identity, as its node knows them: a table, and what it remembers of those that left.

Plain data: nothing happens when it changes. Runners name a bundle by its number (`Held.key`), the store by its name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec.structs import replace

from rota.client.model import TaskInfo

from ...ledger.ledger import Record
from ...recent import Recent
from ...state.keys import whole
from ...state.records import Claim
from .held import Held, LocalJob

REMEMBERED_MAX = 20_000
"""Ended claims, and bundles that began before they were stored: the watch may lag behind our own commits."""


class Claims:
    def __init__(self) -> None:
        self._by_bundle: dict[str, Held] = {}
        self._by_key: dict[int, Held] = {}
        self._next_key = 1
        self._ended: Recent[tuple[str, int], None] = Recent(REMEMBERED_MAX)     # (bundle, create revision)
        self._begun: Recent[str, None] = Recent(REMEMBERED_MAX)
        self._fewer = asyncio.Event()

    def __len__(self) -> int:
        return len(self._by_bundle)

    def __iter__(self) -> Iterator[Held]:
        """Those there are now: it may change meanwhile."""
        return iter(list(self._by_bundle.values()))

    def of(self, bundle: str) -> Held | None:
        return self._by_bundle.get(bundle)

    def by_key(self, key: int) -> Held | None:
        """None for what was handed back, was taken over, or is of an earlier identity."""
        return self._by_key.get(key)

    def job_of(self, key: int, index: int) -> LocalJob | None:
        """Which job the runners mean."""
        held = self._by_key.get(key)
        if held is None:
            return None
        claim = held.claim
        return LocalJob(whole(held.bundle), index, claim.task, claim.queue, claim.attempt, False, held.record)

    def add(self, bundle: str, record: Record, claim: Claim, **known: Any) -> Held:
        held = Held(self._next_key, bundle, record, claim, **known)
        self._next_key += 1
        self._by_bundle[bundle] = self._by_key[held.key] = held
        return held

    def forget(self, held: Held) -> None:
        """It does not lie here any more."""
        held.end()
        if self._by_bundle.get(held.bundle) is held:    # it may have come again, under another claim
            del self._by_bundle[held.bundle]
        self._by_key.pop(held.key, None)
        self.note_ended(held.bundle, held.record.create_revision)
        self._fewer.set()

    def note_ended(self, bundle: str, create_revision: int) -> None:
        """The watch may yet show this claim, or an update of it: it is not a new one."""
        self._ended.put((bundle, create_revision), None)

    def lies_here(self, bundle: str, create_revision: int) -> None:
        """It was read just now: it has not ended, whatever was thought."""
        self._ended.drop((bundle, create_revision))

    def has_ended(self, bundle: str, create_revision: int) -> bool:
        return (bundle, create_revision) in self._ended

    def is_held(self, bundle: str, create_revision: int) -> bool:
        """Whether it is here under this claim; or under one of our own (level `delayed`) that is not stored yet."""
        held = self._by_bundle.get(bundle)
        return held is not None and held.record.create_revision in (0, create_revision)

    def note_begun(self, bundle: str) -> bool:
        """Level `delayed`: whether it may begin, for the first time. A repeat, which will find the receipt, may not."""
        if bundle in self._begun or bundle in self._by_bundle:
            return False
        self._begun.put(bundle, None)
        return True

    def may_begin_again(self, bundle: str) -> None:
        """What had begun was not stored: it may be asked for again."""
        self._begun.drop(bundle)

    async def until_empty(self) -> None:
        while self._by_bundle:
            self._fewer.clear()
            await self._fewer.wait()


def must_not_repeat(tasks: Mapping[str, TaskInfo], claim: Claim) -> bool:
    """Whether its task says so of what may have begun (`on_orphan="fail"`): its start is recorded before it happens."""
    info = tasks.get(claim.task)
    return info is not None and info.on_orphan == "fail"


def take_mode_of_here(tasks: Mapping[str, TaskInfo], held: Held) -> bool:
    """A task runs in the mode that the code here has, whatever it was when the job was enqueued. False if it is not
    here (any more): this node's record says so, or will in a moment."""
    info = tasks.get(held.claim.task)
    if info is not None and info.mode != held.claim.mode:
        held.claim = replace(held.claim, mode=info.mode)
    return info is not None
