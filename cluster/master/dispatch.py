"""Who runs what: the master's decisions, as a pure state machine.

Events of the one watch over the cluster go in (`apply`), pages of queues (`page`) and verdicts (`settle`) too; `decide`
gives out commands. No I/O, no clock of its own, no randomness: the shell in `term.py` carries the commands out, every
one of them guarded, so that a decision taken on stale facts is refused by the store and simply taken again.

What it knows of the queues is in `queues` and `lanes`, of the nodes in `members` and `claims`, what limits count in
`limits`; whose turn it is in `turns`, where a bundle goes in `placement`. What is over is forgotten: no name, of
whatever, costs anything afterwards.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from rota.client.model import JOBS_PER_BUNDLE_MAX

from ..ledger.ledger import Event, Record
from ..state.keys import JobKey, Keys
from ..state.records import QueueRecord, TaskRecord, Token, decode, token_in
from .claims import Claims
from .expiries import Expiries
from .lanes import Family, Head, Item, LaneId
from .limits import Limits
from .members import Assignment, Seat
from .paces import Paces
from .placement import Cut, place, place_spare
from .queues import Queue, Window
from .spares import Starved
from .turns import Gate, Turns

PAGE_FIRST = 1_000
PAGE_NEXT = 10_000

CLOSED_S = 2.0
"""So long a node is given nothing else when it was given what was lost while it ran."""

CAREFUL_BELOW = 2 * JOBS_PER_BUNDLE_MAX
"""Of what limits admit: nothing is given ahead then, only slots that are idle now count."""


class GiveClaim(NamedTuple):
    item: Item
    seat: Seat
    held: Assignment          # the reservation
    serial: bool


class Split(NamedTuple):
    """Into pieces of `size` jobs."""

    item: Item
    size: int


class Expire(NamedTuple):
    """It is too late for what this token has not begun."""

    item: Item


class LoadPage(NamedTuple):
    queue: str
    priority: int
    after: bytes
    limit: int


class TakeOver(NamedTuple):
    node: str


class Quarantine(NamedTuple):
    """A token nobody can read: it goes to the failed set, its bytes kept."""

    record: Record


Command: TypeAlias = GiveClaim | Split | Expire | LoadPage | TakeOver | Quarantine


class Aggregator:
    """One term of a master. Feed it the snapshot, then `open()`; before that it decides nothing."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.queues: dict[str, Queue] = {}
        self.tasks: dict[str, TaskRecord] = {}
        self.limits = Limits(self.tasks)
        self.paces = Paces()
        self.claims = Claims(keys, self.paces, lambda held, jobs: self._count_jobs(held, jobs), self._not_ours)
        self.revision = 0
        self.wall_ms = 0
        self.is_open = False
        self.unparsable = 0
        self.unparsable_key = b""
        self._turns = Turns()
        self._closed: list[tuple[float, Seat]] = []     # until when
        self._starved = Starved(self.queues)
        self._ownerless: set[str] = set()               # what the snapshot shows claims under, and is no member
        self._commands: list[Command] = []
        self._deciding: dict[bytes, Item] = {}          # given out, no verdict yet
        self._splitting: dict[tuple[bytes, int], tuple[Gate, int]] = {}     # of those, what is being split
        self._partial: set[Window] = set()              # not all of their tokens are known
        self._blind: set[str] = set()                   # queues whose head is known at a later revision
        self._due: list[tuple[int, str]] = []           # (ms, queue) of heads that wait for their time: a heap
        self._expiries = Expiries()

    @property
    def seats(self) -> dict[str, Seat]:
        return self.claims.seats

    @property
    def next_ms(self) -> int | None:
        """When to decide at the latest (wall time): the retry at the head of a serial queue is due."""
        times = [self._due[0][0]] if self._due else []
        if (expires := self._expiries.next_ms) is not None:
            times.append(expires)
        return min(times, default=None)

    # -- what the master knows -------------------------------------------------------------------------------------

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
                self._take_over(self.claims.see_node(event))
                self._turns.members_changed(self.seats.values(), self.queues.values())
            elif key.startswith(keys.tasks):
                self._task(event)
            elif key.startswith(keys.queues):
                self._queue_settings(event)
        self.revision = max(self.revision, revision)
        self.claims.passed(self.revision, now)
        if self._blind:
            self._see_again()

    def open(self) -> None:
        """The snapshot is complete: from here on the master decides. Claims of nodes that are gone are orphans."""
        self.is_open = True
        for node in sorted(self._ownerless):
            self._commands.append(TakeOver(node))
        self._ownerless.clear()

    def _take_over(self, node: str | None) -> None:
        """This one is no member (any more), and may have claims."""
        if node is not None and self.is_open:
            self._commands.append(TakeOver(node))
        elif node is not None:
            self._ownerless.add(node)

    def _not_ours(self, record: Record) -> None:
        """A key that rota did not write, or a record that cannot be read: counted, and named now and then."""
        self.unparsable += 1
        self.unparsable_key = record.key

    def _count_jobs(self, held: Assignment, jobs: int) -> None:
        self.limits.count(held, jobs)
        queue = self._queue(held.queue)
        queue.running += jobs
        if jobs < 0:
            if not queue.running:
                self._starved.note(queue.name)
            self._happened(queue)

    def _queue(self, name: str) -> Queue:
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Queue(name, self._turns)
        return queue

    def _happened(self, queue: Queue) -> None:
        """Something has changed for a queue: it may have something to give out now, or be over."""
        if queue.is_over(self.revision):
            queue.close()
            self._starved.forget(queue.name)
            self.queues.pop(queue.name, None)
        elif not queue.settings.paused:
            queue.wake()

    def _see_again(self) -> None:
        """Queues whose heads are known by now."""
        for name in list(self._blind):
            queue = self.queues.get(name)
            if queue is None or queue.blind_to <= self.revision:
                self._blind.discard(name)
                if queue is not None:
                    self._happened(queue)

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
        self.limits.changed(name)

    def _queue_settings(self, event: Event) -> None:
        name = self.keys.parse_queue(event.record.key)
        record = QueueRecord() if event.deleted else decode(QueueRecord, event.record.value)
        if name is None or record is None:
            self._not_ours(event.record)        # the settings that were known go on
            return
        queue = self._queue(name)
        queue.settings = record
        self._happened(queue)

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
                self._happened(queue)
            return
        self.claims.came_back(parsed.bundle, record.mod_revision, now)
        if window is None or not window.is_behind(record.key):      # else a later page will show it
            self._take_token(record, parsed)

    def _take_token(self, record: Record, place: JobKey) -> None:
        given = self._deciding.get(record.key)
        if given is not None and given.mod_revision >= record.mod_revision:
            return
        token = token_in(place.queue, record.value)
        if token is None:
            queue = self.queues.get(place.queue)
            if queue is not None and place.priority in queue.windows:
                queue.windows[place.priority].remove(record.key, record.mod_revision)   # before it was overwritten
            self._not_ours(record)
            self._commands.append(Quarantine(record))
            return
        pending = token.pending if token.done else token.count
        self._add(Item(record.key, token, place.bundle, record.mod_revision, pending), place)

    def _add(self, item: Item, place: JobKey) -> None:
        queue = self._queue(place.queue)
        window = queue.window(place.priority)
        window.add(item)
        if item.token.expires:
            self._expiries.note(item, place.priority)
        if not queue.running:
            self._starved.note(queue.name)
        if window.is_partial:
            self._partial.add(window)
        if queue.resting and not queue.settings.paused:
            queue.wake()

    def expect_page(self, queue: str, priority: int) -> None:
        """Before the first page of a queue is read: nothing of it is known yet."""
        window = self._queue(queue).window(priority)
        window.known_to = window.loading = b""
        self._partial.add(window)

    def page(self, queue: str, priority: int, records: Iterable[Record], *, more: bool) -> None:
        """The page that was asked for, read linearizably, so at least as new as the watch was when it was asked for."""
        window = self._queue(queue).window(priority)
        last = window.loading or b""
        for record in records:
            last = record.key
            parsed = self.keys.parse_job(record.key)
            if parsed is None:
                self._not_ours(record)
            else:
                self._take_token(record, parsed)
        window.loaded(last, more=more)
        self._happened(self._queue(queue))

    # -- verdicts --------------------------------------------------------------------------------------------------

    def settle(self, item: Item, seat: Seat | None, held: Assignment | None = None, *, applied: bool, token_stale: bool,
               doubtful_at: int | None, now: float, revision: int = 0) -> None:
        """What became of a claim, by its reservation (or, without a seat, of a split). Meanwhile the bundle may have
        come back, and have been given to the same node once more: that is another reservation. `revision`: where the
        pieces of the split appeared, or what has taken the token's place. `doubtful_at`: it may have applied in an
        earlier try; the watch will have shown so once it has passed that revision."""
        if self._deciding.get(item.key) is item:
            del self._deciding[item.key]
        queue = self._queue(item.token.queue)
        if revision > max(queue.blind_to, self.revision):
            queue.blind_to = revision
            self._blind.add(queue.name)
        if seat is None:
            queue.splitting -= 1
            gate, jobs = self._splitting.pop((item.key, item.mod_revision))
            gate.splitting -= jobs
        elif applied:
            return
        elif held is not None:
            self.claims.refused(seat, item.bundle, held, self.revision, now, doubtful_at=doubtful_at or 0)
        parsed = self.keys.parse_job(item.key)
        if not applied and not token_stale and parsed is not None:
            self._add(item, parsed)
        self._happened(self._queue(queue.name))

    def expired(self, item: Item, revision: int = 0) -> None:
        """It has ended; or, at that revision, something else lies there, which the watch will show."""
        queue = self._queue(item.token.queue)
        queue.splitting -= 1
        if revision > max(queue.blind_to, self.revision):
            queue.blind_to = revision
            self._blind.add(queue.name)
        self._happened(queue)

    # -- decisions -------------------------------------------------------------------------------------------------

    def decide(self, now: float, wall_ms: int = 0, budget: int = 1_000) -> list[Command]:
        """Up to `budget` commands, and what was left to say. Call again while it returns any; and at `next_ms`."""
        commands, self._commands = self._commands, []
        self.wall_ms = wall_ms
        if not self.is_open:
            self._commands = commands
            return []
        while self._due and self._due[0][0] <= wall_ms:
            queue = self.queues.get(heapq.heappop(self._due)[1])
            if queue is not None:
                self._happened(queue)
        if self._closed:
            self._reopen(now)
        if self._expiries:
            self._expire(commands, budget)
        self._turns.begin(lambda gate: self._has_room(gate, now))
        while len(commands) < budget and (queue := self._turns.first()) is not None:
            command = self._next(queue, now)
            if command is not None:
                commands.append(command)
                self._turns.served(queue)
            else:
                self._turns.skip(queue)
        if len(commands) < budget and self._starved:
            self._lend(commands, now)
        self._turns.end()
        if self._partial:
            commands.extend(self._pages_wanted(all_seen=len(commands) < budget))
        return commands

    def _reopen(self, now: float) -> None:
        """Nodes that had something for itself: it has ended, or enough time is over."""
        closed, self._closed = self._closed, []
        for until, seat in closed:
            if seat.alone and now < until:
                self._closed.append((until, seat))
            else:
                seat.is_closed = False
    def _expire(self, commands: list[Command], budget: int) -> None:
        """What has expired is not given out. (What blocks a serial queue waits for a person, however long.)"""
        for name, priority, key in self._expiries.due(self.wall_ms):
            queue = self.queues.get(name)
            window = queue.windows.get(priority) if queue is not None else None
            item = window.get(key) if window is not None else None
            if queue is None or window is None or item is None or item.token.blocked:
                continue
            if item.token.expires <= self.wall_ms:
                window.remove(key)
                queue.splitting += 1            # the next of a serial queue is not its head before this has ended
                commands.append(Expire(item))
                self._happened(queue)
            if len(commands) >= budget:
                return

    def _lend(self, commands: list[Command], now: float) -> None:
        """Spare slots for queues of which nothing runs."""
        if not any(seat.has_spare for seat in self.seats.values()):
            return
        for queue in self._starved.now(now):
            gates = [
                gate for family in queue.families() if not (gate := family.gate).is_open and not gate.wants_empty(now)
            ]
            for gate in gates:
                gate.is_open = gate.is_spare = any(seat.spare(mode) > 0 for seat, mode in gate.seats)
            command = self._next(queue, now)
            for gate in gates:
                gate.is_open = gate.is_spare = False
            if command is not None:
                commands.append(command)
                self._turns.served(queue)

    def _has_room(self, gate: Gate, now: float) -> bool:
        """Whether any node there may be given something now."""
        lane = gate.id.lane
        left = self.limits.left_of_task(lane.task)
        if left <= 0:
            return False
        if lane.alone:
            return self._has_room_alone(gate, now)
        careful = self._careful(lane, left)
        for seat, mode in gate.seats:
            room = seat.idle(mode) if careful else seat.room(mode, now)
            if room > 0:
                return True
        return False

    def _has_room_alone(self, gate: Gate, now: float) -> bool:
        """Likewise, for what was lost while it ran: a node that has nothing else; after a while, no other such job."""
        seats = [seat for seat, mode in gate.seats if seat.idle(mode) > 0 and not seat.alone]
        if any(not seat.held for seat in seats):
            gate.alone_since = None
            return True
        if gate.alone_since is None:
            gate.alone_since = now
        return bool(seats) and not gate.wants_empty(now)

    def _careful(self, lane: LaneId, left: int) -> bool:
        """`left`: how many jobs the task's limit admits."""
        return bool(lane.care) or left < CAREFUL_BELOW or (lane.keyed and self.limits.per_key(lane.task))

    def _pages_wanted(self, *, all_seen: bool) -> Iterator[LoadPage]:
        """What has to be read on, since little of it is left, or since nothing of it can be run: `all_seen`, and a node
        that serves the queue is idle."""
        for window in list(self._partial):
            queue = window.queue
            if not window.is_partial:
                self._partial.discard(window)
                continue
            idle = all_seen and queue.gives_out and any(
                seat.serves(queue.name) and seat.has_slot for seat in self.seats.values()
            )
            after = window.wants(more=idle)
            if after is not None:
                window.loading = after
                yield LoadPage(queue.name, window.priority, after, PAGE_NEXT)

    def _next(self, queue: Queue, now: float) -> Command | None:
        """What the queue gives out now: the first of its jobs that has a node."""
        if queue.settings.serial and not queue.settings.paused:
            return self._next_serial(queue, now)
        if not queue.gives_out:
            queue.rest()
            return None
        passed: set[Family] = set()
        for _, window in queue.by_priority():
            while (head := window.first_open(passed, self.paces)) is not None:
                command = self._place(queue, window, head, now)
                if command is not None:
                    return command
                if not head[1].parked:
                    passed.add(head[0])
        return None

    def _next_serial(self, queue: Queue, now: float) -> Command | None:
        """The head, if nothing of the queue runs and it is certain which token is the head."""
        head = None if queue.running or queue.splitting or queue.blind_to > self.revision else queue.certain_head()
        queue.rest()
        if head is None or head[2].token.blocked or self._too_early(queue, head[2].token):
            return None
        family, lane, _ = head
        if not lane.parked:
            family.gate.enter(queue)        # it stands at this gate alone
        command = self._place(queue, family.window, head, now) if family.gate.is_open else None
        if command is None and family.gate.is_open:
            queue.wake()                    # for the next pass
        return command

    def _too_early(self, queue: Queue, token: Token) -> bool:
        if token.not_before <= self.wall_ms:
            return False
        if queue.due_ms != token.not_before:
            queue.due_ms = token.not_before
            heapq.heappush(self._due, (token.not_before, queue.name))
        return True

    def _place(self, queue: Queue, window: Window, head: Head, now: float) -> Command | None:
        """Give the token to a node, or split it; or close its gate for this pass, or park its lane."""
        family, lane, item = head
        token, gate = item.token, family.gate
        allowed = self._allowed(queue, token)
        if allowed <= 0 and self.limits.left_of_key(token.task, token.key) <= 0:
            self.limits.park(token.task, lane)
            return None
        careful = self._careful(gate.id.lane, self.limits.left_of_task(token.task))
        pace = self.paces.of(token.task, now)
        choice = None if allowed <= 0 else place_spare(gate, item) if gate.is_spare else place(
            gate, item, allowed, careful=careful or allowed < CAREFUL_BELOW, pace=pace, now=now
        )
        if choice is None:
            gate.is_open = allowed > 0 and allowed < CAREFUL_BELOW and not careful      # then it is this queue alone
            return None
        window.remove(item.key)
        self._deciding[item.key] = item
        if isinstance(choice, Cut):
            queue.splitting += 1
            gate.splitting += item.pending
            self._splitting[item.key, item.mod_revision] = (gate, item.pending)
            return Split(item, choice.size)
        held = Assignment(
            token.task, queue.name, choice.mode, item.pending, token.lost > 0, False, token.key, since=now
        )
        self.claims.hold(choice.seat, item.bundle, held)
        if held.alone:
            choice.seat.is_closed = True
            self._closed.append((now + CLOSED_S, choice.seat))
        return GiveClaim(item, choice.seat, held, queue.settings.serial)

    def _allowed(self, queue: Queue, token: Token) -> int:
        """Jobs of this token that its limits still admit."""
        return min(
            self.limits.left_of_task(token.task), self.limits.left_of_key(token.task, token.key), queue.left_of_limit
        )

