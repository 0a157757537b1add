"""What waits for jobs, put down as the watch shows it: tokens below `awaiting/`, sections of flows, and which bundles
are to be looked at because something has become of their jobs. In memory, pure.
"""

from __future__ import annotations

import asyncio

from ...ledger.ledger import Changes, Event, Record
from ...state.keys import Keys, whole
from ...state.records import awaiting_at
from .awaited import Awaited, Waiting
from .flows import Sections


class Notes:
    """One term's. `unreadable`: tokens that nobody can read; `wake` is set when there is something to do."""

    def __init__(self, keys: Keys, awaited: Awaited, sections: Sections) -> None:
        self._keys = keys
        self._awaited = awaited
        self._sections = sections
        self._of_flows = keys.root + b"flow"        # how keys of flows begin
        self.unreadable: list[Record] = []
        self.revision = 0
        self.wake = asyncio.Event()

    def see(self, changes: Changes) -> None:
        self.revision = changes.revision
        for event in changes.events:
            key = event.record.key
            if key.startswith(self._keys.awaiting):
                self._note(event)
            elif key.startswith(self._of_flows):
                self.begin(self._sections.see(event))
                self.wake.set()
                continue
            if self._awaited and (bundle := self._bundle_of(key)) in self._awaited:
                self._awaited.to_look[bundle] = None
                self.wake.set()

    def _note(self, event: Event) -> None:
        if event.deleted:
            self.forget(event.record.key)
        else:
            self.add(event.record)

    def add(self, record: Record) -> None:
        known = self._awaited.waiting.get(record.key)
        if known is not None and known.mod_revision >= record.mod_revision:
            return
        token = awaiting_at(self._keys, record)
        if token is None:
            if self._keys.parse_awaits(record.key) is not None:     # else it is not ours: left alone
                self.unreadable.append(record)
                self.wake.set()
            return
        self.wake.set()
        if known is not None:
            known.mod_revision, known.token = record.mod_revision, token
            self._awaited.arm(known)
            self._awaited.look_at_all(known)
            return
        waiting = Waiting(
            record.key, record.key.rpartition(b"/")[2].decode(), record.mod_revision, token,
            {one.bundle: int(one.jobs or "0", 16) for one in token.upstream},
            {one.bundle: int(one.wanted or "0", 16) for one in token.upstream},
        )
        self._awaited.put(waiting)
        if token.section and not self._sections.is_there(token.section):
            self._sections.hold(token.section, record.key)
        else:
            self._awaited.begin(waiting)

    def begin(self, keys: set[bytes]) -> None:
        """The section of these is there."""
        for key in sorted(keys):
            if (waiting := self._awaited.waiting.get(key)) is not None:
                self._awaited.begin(waiting)

    def forget(self, key: bytes) -> None:
        waiting = self._awaited.forget(key)
        if waiting is not None and waiting.token is not None and waiting.token.section:
            self._sections.let_go(waiting.token.section, key)

    def _bundle_of(self, key: bytes) -> str:
        """The bundle, as enqueued, that a key tells something of."""
        if key.startswith(self._keys.failed):
            parsed = self._keys.parse_failed(key)
            return parsed[1] if parsed is not None else ""
        return whole(key.rpartition(b"/")[2].decode(errors="replace"))
