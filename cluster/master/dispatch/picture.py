"""What the master knows, pure: events of the watch and pages of queues go in.

Of the queues it is in `queues` and `lanes`, of the nodes in `members` and `claims`, what limits count in `limits`. What
is over is forgotten: no name, of whatever, costs anything afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...ledger.ledger import Event, Record
from ...state.keys import JobKey, Keys
from ...state.records import QueueRecord, TaskRecord, decode, token_in
from .claims import Claims
from .commands import Command, Quarantine, TakeOver
from .expiries import Expiries
from .lanes import Item
from .limits import Limits
from .members import Assignment, NodeLoad
from .paces import Paces
from .pacing import Pacing
from .queues import PLAIN_SETTINGS, Queue, Window
from .rates import Rates
from .spares import Starved
from .turns import Turns


class Picture:
    """Of one term. Feed it the snapshot, then `open()`. `commands`: what is to be done whatever is decided."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.queues: dict[str, Queue] = {}
        self.tasks: dict[str, TaskRecord] = {}
        self.limits = Limits(self.tasks)
        self.rates = Rates(keys, self.tasks)
        self.paces = Paces()
        self.claims = Claims(keys, self.paces, self._count_jobs, self._not_ours)
        self.turns: Turns[Queue] = Turns(self.claims.gains)
        self.starved = Starved(self.queues)
        self.revision = 0
        self.is_open = False
        self.commands: list[Command] = []
        self.deciding: dict[bytes, Item] = {}           # given out, no verdict yet
        self.partial: set[Window] = set()               # not all of their tokens are known
        self.blind: set[str] = set()                    # queues whose head is known at a later revision
        self.expiries = Expiries(self.queues)
        self.pacing = Pacing()
        self.held_up = False                            # something waits for slots of nodes, or of limits
        self._ownerless: set[str] = set()               # what the snapshot shows claims under, and is no member
        self._strays = 0
        self._stray = b""

    @property
    def nodes(self) -> dict[str, NodeLoad]:
        return self.claims.nodes

    def strays(self) -> tuple[int, bytes]:
        """How many keys and records were not rota's, or could not be read, since it was last asked; and one of them."""
        count, self._strays = self._strays, 0
        return count, self._stray

    def apply(self, events: Iterable[Event], revision: int, now: float) -> None:
        """Take over what the watch delivered, in order."""
        keys = self.keys
        for event in events:
            key = event.record.key
            if key.startswith(keys.jobs):
                self._job(event, now)
            elif key.startswith(keys.claims):
                self._take_over(self.claims.see_claim(event, now))
            elif key.startswith(keys.nodes):
                self.pacing.changed()
                self._take_over(self.claims.see_node(event))
                self.turns.members_changed(self.nodes.values(), self.queues.values())
            elif key.startswith(keys.tasks):
                self.pacing.changed()
                self._task(event)
            elif key.startswith(keys.queues):
                self.pacing.changed()
                self._queue_settings(event)
            elif key.startswith(keys.rates):
                self.pacing.changed()
                if not self.rates.see(event):
                    self._not_ours(event.record)
        self.revision = max(self.revision, revision)
        self.claims.passed(self.revision, now)
        if self.blind:
            self._see_again()
        if self.commands:
            self.pacing.changed()

    def due(self, now: float) -> float | None:
        """When to decide by what has been seen; None: nothing has changed for what waits."""
        return self.pacing.due(now)

    def open(self) -> None:
        """The snapshot is complete: from here on the master decides. Claims of nodes that are gone are orphans."""
        self.is_open = True
        for node in sorted(self._ownerless):
            self.commands.append(TakeOver(node))
        self._ownerless.clear()

    def _take_over(self, node: str | None) -> None:
        """This one is no member (any more), and may have claims."""
        if node is not None and self.is_open:
            self.commands.append(TakeOver(node))
        elif node is not None:
            self._ownerless.add(node)

    def _not_ours(self, record: Record) -> None:
        """A key that rota did not write, or a record that cannot be read: counted, and named now and then."""
        self._strays += 1
        self._stray = record.key

    def _count_jobs(self, held: Assignment, jobs: int) -> None:
        self.limits.count(held, jobs)
        queue = self.queue(held.queue)
        queue.running += jobs
        if jobs < 0:
            if not queue.running:
                self.starved.note(queue.name)
            if self.held_up:
                self.pacing.changed()
            self.happened(queue, ended=True)

    def queue(self, name: str) -> Queue:
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Queue(name, self.turns)
        return queue

    def is_serial(self, name: str) -> bool:
        return (queue := self.queues.get(name)) is not None and queue.settings.serial

    def wake(self, name: str) -> None:
        """This queue may give something out again."""
        if (queue := self.queues.get(name)) is not None:
            self.happened(queue)

    def happened(self, queue: Queue, *, ended: bool = False) -> None:
        """Something has changed for a queue: it may have something to give out now, or be over. `ended`: only jobs of
        it have, which is nothing to a queue without a limit."""
        if queue.is_over(self.revision):
            queue.close()
            self.starved.forget(queue.name)
            self.queues.pop(queue.name, None)
        elif not queue.settings.paused:
            queue.wake()
            if queue.size and not (ended and queue.settings == PLAIN_SETTINGS):
                self.pacing.changed()

    def _see_again(self) -> None:
        """Queues whose heads are known by now."""
        for name in list(self.blind):
            queue = self.queues.get(name)
            if queue is None or queue.blind_to <= self.revision:
                self.blind.discard(name)
                if queue is not None:
                    self.happened(queue)

    def _task(self, event: Event) -> None:
        name = self.keys.parse_task(event.record.key)
        record = None if event.deleted else decode(TaskRecord, event.record.value)
        if name is None or (record is None and not event.deleted):
            self._not_ours(event.record)        # the limits that were known go on
            return
        if record is None:
            self.tasks.pop(name, None)
        else:
            self.tasks[name] = record
        self.rates.note("task", name, rated=self.rates.limits(name))
        self.limits.changed(name)

    def _queue_settings(self, event: Event) -> None:
        name = self.keys.parse_queue(event.record.key)
        record = QueueRecord() if event.deleted else decode(QueueRecord, event.record.value)
        if name is None or record is None:
            self._not_ours(event.record)        # the settings that were known go on
            return
        queue = self.queue(name)
        queue.settings = record
        self.rates.note("queue", name, rated=record.rate is not None)
        self.happened(queue)

    def _job(self, event: Event, now: float) -> None:
        record = event.record
        parsed = self.keys.parse_job(record.key)
        if parsed is None:
            self._not_ours(record)      # left alone
            return
        queue = self.queues.get(parsed.queue)
        window = queue.windows.get(parsed.priority) if queue is not None else None
        if event.deleted:
            if queue is not None and window is not None and window.remove(record.key, record.mod_revision):
                self.happened(queue)
            return
        self.claims.came_back(parsed.bundle, record.mod_revision, now)
        if window is None or not window.is_behind(record.key):      # else a later page will show it
            self._take_token(record, parsed)

    def _take_token(self, record: Record, place: JobKey) -> None:
        given = self.deciding.get(record.key)
        if given is not None and given.mod_revision >= record.mod_revision:
            return
        token = token_in(place.queue, record.value)
        if token is None:
            queue = self.queues.get(place.queue)
            window = queue.windows.get(place.priority) if queue is not None else None
            if queue is not None and window is not None and window.remove(record.key, record.mod_revision):
                self.happened(queue)            # it stood there before it was overwritten
            self._not_ours(record)
            self.commands.append(Quarantine(record))
            return
        pending = token.pending if token.done else token.count
        self.add(Item(record.key, token, place.bundle, record.mod_revision, pending), place)

    def add(self, item: Item, place: JobKey) -> None:
        queue = self.queue(place.queue)
        window = queue.window(place.priority)
        window.add(item)
        if item.token.expires:
            self.expiries.note(item, place.priority)
        if not queue.running:
            self.starved.note(queue.name)
        if window.is_partial:
            self.partial.add(window)
        self.pacing.arrived(item.pending, calm=item.token.calm and item.token.attempt == 1)
        if queue.resting and not queue.settings.paused:
            queue.wake()

    def expect_page(self, queue: str, priority: int) -> None:
        """Before the first page of a queue is read: nothing of it is known yet."""
        window = self.queue(queue).window(priority)
        window.known_to = window.loading = b""
        self.partial.add(window)

    def page(self, queue: str, priority: int, records: Iterable[Record], *, more: bool) -> None:
        """The page that was asked for, read linearizably, so at least as new as the watch was when it was asked for."""
        window = self.queue(queue).window(priority)
        last = window.loading or b""
        for record in records:
            last = record.key
            parsed = self.keys.parse_job(record.key)
            if parsed is None:
                self._not_ours(record)
            else:
                self._take_token(record, parsed)
        window.loaded(last, more=more)
        self.happened(self.queue(queue))
