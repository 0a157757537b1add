"""The keys of the in-memory store, with all their versions since the last compaction. Pure: no clock, no waiting.

The live keys lie in one sorted list, so that reading a range does not wade through what was deleted; a second list
holds every key that still has history, for reads at an old revision.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

import msgspec

from .ledger import Event, Record

VERSION_OVERHEAD_BYTES = 64
"""What a version costs beside key and value; etcd's is of this order."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """One event, with the record that it replaced or deleted (None if it created the key)."""

    event: Event
    previous: Record | None


class Keyspace:
    """Writes collect in the next revision; `seal` makes it the current one."""

    def __init__(self, revision: int = 1) -> None:
        self.revision = revision
        self.compacted = 0
        self.bytes_in_use = 0
        self._live: dict[bytes, Record] = {}
        self._live_keys: list[bytes] = []
        self._versions: dict[bytes, list[Event]] = {}
        self._known_keys: list[bytes] = []
        self._history: list[tuple[Change, ...]] = []
        self._history_base = revision + 1           # the revision of the first entry
        self._open: list[Change] = []

    def __len__(self) -> int:
        return len(self._live)

    def get(self, key: bytes) -> Record | None:
        return self._live.get(key)

    def find(self, key: bytes, range_end: bytes) -> Iterator[Record]:
        """The records of a key or a range, as they are now (writes of the open revision included)."""
        if not range_end:
            record = self._live.get(key)
            return iter(() if record is None else (record,))
        first, last = _slice(self._live_keys, key, range_end)
        return (self._live[self._live_keys[i]] for i in range(first, last))

    def count(self, key: bytes, range_end: bytes) -> int:
        """How many records `find` finds."""
        if not range_end:
            return int(key in self._live)
        first, last = _slice(self._live_keys, key, range_end)
        return last - first

    def find_at(self, key: bytes, range_end: bytes, revision: int) -> Iterator[Record]:
        """The records of a key or a range as they were at a revision that is not compacted."""
        for name in self._known(key, range_end):
            versions = self._versions.get(name, ())
            for version in reversed(versions):
                if version.record.mod_revision <= revision:
                    if not version.deleted:
                        yield version.record
                    break

    def put(self, key: bytes, value: bytes, lease: int) -> Record | None:
        """Write a key in the open revision. Returns what it replaces."""
        previous = self._live.get(key)
        revision = self.revision + 1
        record = Record(
            key,
            value,
            revision if previous is None else previous.create_revision,
            revision,
            1 if previous is None else previous.version + 1,
            lease,
        )
        if previous is None:
            insort(self._live_keys, key)
        self._live[key] = record
        self._add_version(Event(False, record), previous)
        return previous

    def delete(self, key: bytes, range_end: bytes = b"") -> list[Record]:
        """Delete a key or a range in the open revision. Returns what was there, ascending."""
        gone = list(self.find(key, range_end))
        if gone:
            first = bisect_left(self._live_keys, gone[0].key)
            del self._live_keys[first : first + len(gone)]
        for record in gone:
            del self._live[record.key]
            self._add_version(Event(True, Record(record.key, b"", 0, self.revision + 1, 0)), record)
        return gone

    def seal(self) -> tuple[Change, ...]:
        """End the open revision. Nothing changed: the revision stays as it is."""
        changes = tuple(self._open)
        if changes:
            self._open.clear()
            self.revision += 1
            self._history.append(changes)
        return changes

    def history(self, from_revision: int) -> Iterable[tuple[int, tuple[Change, ...]]]:
        """The revisions from `from_revision` on, which is not below the compacted one."""
        first = max(from_revision, self._history_base)
        return enumerate(self._history[first - self._history_base :], first)

    def compact(self, revision: int) -> None:
        """Forget all versions that were superseded at `revision`, and the history before it."""
        touched = {
            change.event.record.key: None
            for _, changes in self.history(self._history_base)
            for change in changes
            if change.event.record.mod_revision <= revision
        }
        emptied = False
        for key in touched:
            versions = self._versions.get(key, [])
            keep = bisect_right(versions, revision, key=_mod_revision) - 1
            if keep >= 0 and versions[keep].deleted:
                keep += 1
            for version in versions[: max(keep, 0)]:
                self.bytes_in_use -= _size(version)
            del versions[: max(keep, 0)]
            if not versions:
                self._versions.pop(key, None)
                emptied = True
        if emptied:
            self._known_keys = [key for key in self._known_keys if key in self._versions]
        self.compacted = revision
        if revision > self._history_base:
            del self._history[: revision - self._history_base]
            self._history_base = revision

    def _known(self, key: bytes, range_end: bytes) -> list[bytes]:
        if not range_end:
            return [key]
        first, last = _slice(self._known_keys, key, range_end)
        return self._known_keys[first:last]

    def _add_version(self, event: Event, previous: Record | None) -> None:
        key = event.record.key
        versions = self._versions.get(key)
        if versions is None:
            versions = self._versions[key] = []
            insort(self._known_keys, key)
        versions.append(event)
        self.bytes_in_use += _size(event)
        self._open.append(Change(event, previous))


def covers(key: bytes, range_end: bytes, candidate: bytes) -> bool:
    """Whether a key, or a range, holds `candidate`."""
    if not range_end:
        return candidate == key
    return key <= candidate and (range_end == b"\0" or candidate < range_end)


def _slice(keys: list[bytes], key: bytes, range_end: bytes) -> tuple[int, int]:
    first = bisect_left(keys, key)
    return first, len(keys) if range_end == b"\0" else max(first, bisect_left(keys, range_end))


def _mod_revision(event: Event) -> int:
    return event.record.mod_revision


def _size(event: Event) -> int:
    return VERSION_OVERHEAD_BYTES + len(event.record.key) + len(event.record.value)
