"""Who runs what: the master's decisions, as a pure state machine.

Events of the one watch over the cluster go in (`apply`), pages of queues (`page`) and verdicts (`settle`) too; `decide`
gives out commands. No I/O, no clock of its own, no randomness: the shell in `term.py` carries the commands out, every
one of them guarded, so that a decision taken on stale facts is refused by the store and simply taken again.

What it knows of the queues is in `windows`, of the nodes in `seats`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from rota.client.model import JOBS_PER_BUNDLE_MAX, Mode

from ..ledger.ledger import Event, Record
from ..state.keys import JobKey, Keys
from ..state.records import Member, QueueRecord, TaskRecord, Token, claim_in, decode, token_in
from .members import NOBODY, Assignment, Seat, emptiest
from .queues import Item, LaneId, Queue, Window

PAGE_FIRST = 1_000
PAGE_NEXT = 10_000
REFILL_BELOW = 2_000
WINDOW_MAX = 2 * PAGE_NEXT
"""Tokens of one window; what comes in beyond is left to the next pages."""

SLOW_S = 10.0
"""How long a task counts as slow after a node gave back a piece of a bundle. Bundles of slow tasks are split before
they are given out; of others, an idle node gets a whole one, even if it is more than it has slots."""


class GiveClaim(NamedTuple):
    item: Item
    seat: Seat
    held: Assignment          # the reservation


class Split(NamedTuple):
    """Into pieces of `size` jobs."""

    item: Item
    size: int


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


Command: TypeAlias = GiveClaim | Split | LoadPage | TakeOver | Quarantine


class Aggregator:
    """One term of a master. Feed it the snapshot, then `open()`; before that it decides nothing."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.seats: dict[str, Seat] = {}
        self._gone: dict[str, Seat] = {}        # no members any more: their claims count until they are taken over
        self.queues: dict[str, Queue] = {}
        self.tasks: dict[str, TaskRecord] = {}
        self.running_of_task: dict[str, int] = {}
        self.running_of_key: dict[tuple[str, str], int] = {}
        self.revision = 0
        self.wall_ms = 0
        self.next_ms: int | None = None
        self.is_open = False
        self._commands: list[Command] = []
        self._deciding: dict[bytes, Item] = {}          # given out, no verdict yet
        self._ended: dict[str, tuple[Seat, Mode]] = {}  # bundle -> under whom its claim ended, at `_ended_at`
        self._ended_at = 0
        self._doubtful: list[tuple[int, str, str, Assignment]] = []  # (revision, node, bundle, reservation): unsure
        self._turn: list[str] = []                       # queues, in the order of their turns
        self._slow_until: dict[str, float] = {}
        self._ownerless: set[str] = set()               # what the snapshot shows claims under, and is no member
        self.unparsable = 0
        self.unparsable_key = b""

    # -- what the master knows -------------------------------------------------------------------------------------

    def apply(self, events: Iterable[Event], revision: int, now: float) -> None:
        """Take over what the watch delivered, in order."""
        keys = self.keys
        for event in events:
            key = event.record.key
            if key.startswith(keys.jobs):
                self._job(event, now)
            elif key.startswith(keys.claims):
                self._claim(event, now)
            elif key.startswith(keys.nodes):
                self._node(event)
            elif key.startswith(keys.tasks):
                self._task(event)
            elif key.startswith(keys.queues):
                self._queue_settings(event)
        self.revision = max(self.revision, revision)
        self._drop_doubtful(now)

    def open(self) -> None:
        """The snapshot is complete: from here on the master decides. Claims of nodes that are gone are orphans."""
        self.is_open = True
        for node in sorted(self._ownerless):
            self._commands.append(TakeOver(node))
        self._ownerless.clear()

    def _node(self, event: Event) -> None:
        record = event.record
        node = self.keys.parse_node(record.key)
        if node is None:
            self._not_ours(record)
            return
        if event.deleted or not record.lease:       # a member lives by its lease: without one there is none
            if not event.deleted:
                self._not_ours(record)
            seat = self.seats.pop(node, None)
            if seat is not None:
                if seat.held:
                    self._gone[node] = seat
                self._commands.append(TakeOver(node))
            return
        member = decode(Member, record.value)
        if member is None:
            self._not_ours(record)
            member = NOBODY         # it keeps what it holds, and gets nothing
        seat = self.seats.get(node)
        if seat is None:
            self.seats[node] = Seat(node, member, record.create_revision, record.mod_revision)
        else:
            seat.member, seat.mod_revision = member, record.mod_revision

    def _claim(self, event: Event, now: float) -> None:
        parsed = self.keys.parse_claim(event.record.key)
        if parsed is None:
            self._not_ours(event.record)
            return
        node, bundle = parsed
        seat = self._seat(node)
        if event.deleted:
            if seat is not None and (ended := seat.held.get(bundle)) is not None:
                self._note_end(event.record.mod_revision, bundle, seat, ended.mode)
            self._release(node, bundle, now, finished=True)
            return
        claim = claim_in(event.record.value)
        if seat is None:
            self._orphaned(node)
        if claim is None:
            self._not_ours(event.record)
            return
        if seat is None:
            seat = self._gone[node] = Seat(node, NOBODY, 0, 0)
        held = seat.held.get(bundle)
        if held is None:
            held = Assignment(claim.task, claim.queue, claim.mode, claim.pending, claim.lost > 0, True, claim.key)
            seat.hold(bundle, held)
            self._count(held, 1)
        else:
            held.confirmed = True
            if claim.pending < held.pending:
                self._count_jobs(held, claim.pending - held.pending)
                if claim.back > held.back:
                    self._slow_until[held.task] = now + SLOW_S
                seat.shrink(held, claim.pending, claim.back, now)

    def _orphaned(self, node: str) -> None:
        """A claim lies under nobody: no member's end will bring it back."""
        if self.is_open:
            self._commands.append(TakeOver(node))
        else:
            self._ownerless.add(node)

    def _note_end(self, revision: int, bundle: str, seat: Seat, mode: Mode) -> None:
        if revision != self._ended_at:
            self._ended_at = revision
            self._ended.clear()
        self._ended[bundle] = (seat, mode)

    def _seat(self, node: str) -> Seat | None:
        """A member's, or that of a node whose claims have not been taken over yet."""
        return self.seats.get(node) or self._gone.get(node)

    def _release(self, node: str, bundle: str, now: float, *, finished: bool) -> None:
        seat = self._seat(node)
        if seat is None or (held := seat.release(bundle, now, finished=finished)) is None:
            return
        self._count(held, -1)
        if not seat.held:
            self._gone.pop(node, None)

    def _count(self, held: Assignment, sign: int) -> None:
        self._count_jobs(held, sign * held.pending)

    def _count_jobs(self, held: Assignment, jobs: int) -> None:
        self.running_of_task[held.task] = self.running_of_task.get(held.task, 0) + jobs
        if held.key:
            running = self.running_of_key.get((held.task, held.key), 0) + jobs
            if running:
                self.running_of_key[held.task, held.key] = running
            else:
                self.running_of_key.pop((held.task, held.key), None)
        self._queue(held.queue).running += jobs

    def _queue(self, name: str) -> Queue:
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Queue()
            self._turn.append(name)
        return queue

    def _task(self, event: Event) -> None:
        name = self.keys.parse_task(event.record.key)
        record = None if event.deleted else decode(TaskRecord, event.record.value)
        if name is None or (record is None and not event.deleted):
            self._not_ours(event.record)        # the limits that were known go on
        elif record is None:
            self.tasks.pop(name, None)
        else:
            self.tasks[name] = record

    def _queue_settings(self, event: Event) -> None:
        name = self.keys.parse_queue(event.record.key)
        record = QueueRecord() if event.deleted else decode(QueueRecord, event.record.value)
        if name is None or record is None:
            self._not_ours(event.record)        # the settings that were known go on
        else:
            self._queue(name).settings = record

    def _not_ours(self, record: Record) -> None:
        """A key that rota did not write, or a record that cannot be read: counted, and named now and then."""
        self.unparsable += 1
        self.unparsable_key = record.key

    def _job(self, event: Event, now: float) -> None:
        record = event.record
        parsed = self.keys.parse_job(record.key)
        if parsed is None:
            self._not_ours(record)      # left alone
            return
        queue = self._queue(parsed.queue)
        window = queue.windows.get(parsed.priority)
        if event.deleted:
            if window is not None:
                window.remove(record.key, record.mod_revision)
            return
        if record.mod_revision == self._ended_at and parsed.bundle in self._ended:
            seat, mode = self._ended[parsed.bundle]     # one write took it from the node to its queue
            seat.gave_back(mode, now)
        if window is None:
            window = queue.windows[parsed.priority] = Window()
        if window.known_to is not None and record.key > window.known_to and not window.loading:
            return      # behind the window: a later page will show it
        self._take_token(window, record, parsed)
        if window.size > WINDOW_MAX and not window.loading:
            window.cut(PAGE_NEXT)

    def _take_token(self, window: Window, record: Record, place: JobKey) -> None:
        given = self._deciding.get(record.key)
        if given is not None and given.mod_revision >= record.mod_revision:
            return
        token = token_in(place.queue, record.value)
        if token is None:
            window.remove(record.key, record.mod_revision)      # what it was before it was overwritten
            self._not_ours(record)
            self._commands.append(Quarantine(record))
            return
        window.add(Item(record.key, token, place.bundle, record.mod_revision, token.pending))

    def expect_page(self, queue: str, priority: int) -> None:
        """Before the first page of a queue is read: nothing of it is known yet."""
        window = self._queue(queue).windows.setdefault(priority, Window())
        window.known_to, window.loading = b"", True

    def page(self, queue: str, priority: int, records: Iterable[Record], *, more: bool) -> None:
        """The next page of a window, read linearizably, so at least as new as the watch was when it was asked for."""
        window = self._queue(queue).windows[priority]
        window.loading = False
        last = window.known_to or b""
        for record in records:
            last = record.key
            parsed = self.keys.parse_job(record.key)
            if parsed is None:
                self._not_ours(record)
            else:
                self._take_token(window, record, parsed)
        window.known_to = last if more else None
        if more:
            window.forget_beyond(last)

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
        queue.blind_to = max(queue.blind_to, revision)
        if seat is None:
            queue.splitting -= 1
        if applied:
            return
        if seat is not None and held is not None:
            if doubtful_at is not None and doubtful_at > self.revision:
                self._doubtful.append((doubtful_at, seat.node, item.bundle, held))
            else:
                self._unreserve(seat.node, item.bundle, held, now)
        if not token_stale:
            parsed = self.keys.parse_job(item.key)
            if parsed is not None:
                window = self._queue(parsed.queue).windows.setdefault(parsed.priority, Window())
                if window.known_to is None or item.key <= window.known_to:
                    window.add(item)

    def _unreserve(self, node: str, bundle: str, held: Assignment, now: float) -> None:
        seat = self._seat(node)
        if seat is not None and seat.held.get(bundle) is held and not held.confirmed:
            self._release(node, bundle, now, finished=False)

    def _drop_doubtful(self, now: float) -> None:
        if self._doubtful:
            passed = [entry for entry in self._doubtful if entry[0] <= self.revision]
            self._doubtful = [entry for entry in self._doubtful if entry[0] > self.revision]
            for _, node, bundle, held in passed:
                self._unreserve(node, bundle, held, now)

    # -- decisions -------------------------------------------------------------------------------------------------

    def decide(self, now: float, wall_ms: int = 0, budget: int = 1_000) -> list[Command]:
        """Up to `budget` commands, and what was waiting to be said. Call again while it returns any; and at `next_ms`
        (wall time), when a retry at the head of a serial queue is due."""
        commands, self._commands = self._commands, []
        self.wall_ms, self.next_ms = wall_ms, None
        if not self.is_open:
            self._commands = commands
            return []
        progress = True
        while progress and len(commands) < budget and self._anybody_free(now):
            progress = False
            for name in list(self._turn):       # one bundle per queue and turn: a noisy queue starves nobody
                queue = self.queues[name]
                if not queue.windows:
                    continue
                command = self._next(name, queue, now)
                if command is not None:
                    commands.append(command)
                    progress = True
                    if len(commands) >= budget:
                        self._turn.remove(name)
                        self._turn.append(name)
                        break
        commands.extend(self._pages_wanted())
        return commands

    def _anybody_free(self, now: float) -> bool:
        return any(seat.room("sync", now) > 0 or seat.room("async", now) > 0 for seat in self.seats.values())

    def _pages_wanted(self) -> Iterator[LoadPage]:
        for name, queue in self.queues.items():
            for priority, window in queue.windows.items():
                if window.known_to is not None and not window.loading and window.size < REFILL_BELOW:
                    window.loading = True
                    yield LoadPage(name, priority, window.known_to, PAGE_NEXT)

    def _next(self, name: str, queue: Queue, now: float) -> Command | None:
        if queue.settings.paused:
            return None
        if queue.settings.serial:
            return self._next_serial(name, queue, now)
        for _, window in queue.by_priority():
            heads = [
                (item.key, lane_id, item)
                for lane_id, lane in window.lanes.items()
                if (item := lane.head()) is not None
            ]
            heads.sort(key=lambda head: head[0])
            for _, lane_id, item in heads:
                command = self._place(name, queue, window, lane_id, item, now)
                if command is not None:
                    return command
        return None

    def _next_serial(self, name: str, queue: Queue, now: float) -> Command | None:
        """The head, if nothing of the queue runs and it is certain which token is the head."""
        if queue.running or queue.splitting or queue.blind_to > self.revision:
            return None
        for _, window in queue.by_priority():
            heads = [
                (item.key, lane_id, item)
                for lane_id, lane in window.lanes.items()
                if (item := lane.head()) is not None
            ]
            if window.known_to is not None and (not heads or min(heads)[0] > window.known_to):
                return None             # a page is on its way
            if not heads:
                continue
            _, lane_id, item = min(heads, key=lambda head: head[0])
            token = item.token
            if token.blocked or self._too_early(token):
                return None
            return self._place(name, queue, window, lane_id, item, now)
        return None

    def _too_early(self, token: Token) -> bool:
        if token.not_before <= self.wall_ms:
            return False
        self.next_ms = min(self.next_ms or token.not_before, token.not_before)
        return True

    def _place(
        self, name: str, queue: Queue, window: Window, lane_id: LaneId, item: Item, now: float
    ) -> Command | None:
        """Give the token to the node with the most room for it; split it if it is larger than what is free."""
        token = item.token
        allowed = 1 if queue.settings.serial else self._allowed(queue, token)
        if allowed <= 0:
            return None
        seats = [seat for seat in self.seats.values() if seat.may_run(name, lane_id)]
        careful = token.suspect or allowed < JOBS_PER_BUNDLE_MAX * 2     # no prefetch: only slots that are idle now
        rooms: dict[Seat, int] = {}
        for seat in seats:
            room = seat.idle(token.mode) if careful else seat.room(token.mode, now)
            if room > 0 and not (token.lost > 0 and seat.alone > 0):
                rooms[seat] = room
        if not rooms:
            return None
        here = rooms
        if any(seat.away_until[token.mode] > now for seat in rooms):
            here = {seat: room for seat, room in rooms.items() if seat.away_until[token.mode] <= now} or rooms
        best = max(here, key=here.__getitem__)
        if item.pending > 1 and (token.suspect or item.pending > min(here[best], allowed)):
            best = emptiest(here, token.mode)      # the fastest may be busy all the time
            if best.outstanding[token.mode] > 0:
                best = emptiest(rooms, token.mode)
            slow = self._slow_until.get(token.task, 0.0) > now
            if token.suspect or item.pending > allowed or (slow and best.idle(token.mode) > 0):
                self._give_out(window, item)
                queue.splitting += 1
                return Split(item, 1 if careful else max(1, best.in_a_slice(token.mode, now)))
            if best.outstanding[token.mode] > 0:
                return None
        self._give_out(window, item)
        held = Assignment(token.task, name, token.mode, item.pending, token.lost > 0, False, token.key)
        best.hold(item.bundle, held)
        self._count(held, 1)
        return GiveClaim(item, best, held)

    def _give_out(self, window: Window, item: Item) -> None:
        window.remove(item.key)
        self._deciding[item.key] = item

    def _allowed(self, queue: Queue, token: Token) -> int:
        """Jobs of this token that its limits still admit."""
        allowed = 1_000_000
        record = self.tasks.get(token.task)
        if record is not None and record.max_concurrency is not None:
            allowed = record.max_concurrency - self.running_of_task.get(token.task, 0)
        if record is not None and record.max_per_key is not None and token.key:
            allowed = min(allowed, record.max_per_key - self.running_of_key.get((token.task, token.key), 0))
        if queue.settings.max_concurrency is not None:
            allowed = min(allowed, queue.settings.max_concurrency - queue.running)
        return allowed
