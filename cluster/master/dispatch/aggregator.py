"""Who runs what: the master's decisions, as a pure state machine.

By what the master knows (`picture`) and the verdicts on what it has decided (`settle`), `decide` gives out commands. No
I/O, no clock of its own, no randomness: `carrying_out` carries the commands out, every one of them guarded, so that a
decision taken on stale facts is refused by the store and simply taken again. Whose turn it is, is in `turns`, where a
bundle goes in `placement`.
"""

from __future__ import annotations

import heapq

from ...state.records import Token
from .commands import Command, Expire, GiveClaim, Split
from .heavy import Heavy
from .lanes import Family, Head, Item
from .members import Assignment, NodeLoad
from .openings import CAREFUL_BELOW, Openings
from .pages import pages_wanted
from .picture import Picture
from .placement import Cut, place, place_spare
from .queues import Queue, Window
from .rates import Reserve
from .rooms import Kind
from .turns import Gate
from .waits import Waits

CLOSED_S = 2.0
"""So long a node is given nothing else when it was given what was lost while it ran."""


class Aggregator:
    """One term of a master. It decides nothing before the picture is open."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.queues, self.nodes = picture.queues, picture.nodes
        self.claims, self.limits, self.paces = picture.claims, picture.limits, picture.paces
        self._turns, self._starved, self._expiries = picture.turns, picture.starved, picture.expiries
        self.rates = picture.rates
        self._heavy = Heavy()
        self._openings = Openings(picture.limits, picture.rates, self._heavy)
        self._rated = Waits(picture.rates, picture.limits, picture.wake)
        self.wall_ms = 0
        self._closed: list[tuple[float, NodeLoad]] = []     # until when
        self._splitting: dict[tuple[bytes, int], tuple[Gate[Queue], int]] = {}     # given out, to be split
        self._due: list[tuple[int, str]] = []           # (ms, queue) of heads that wait for their time: a heap

    @property
    def next_ms(self) -> int | None:
        """When to decide at the latest (wall time): the retry at the head of a serial queue is due."""
        times = [self._due[0][0]] if self._due else []
        if (expires := self._expiries.next_ms) is not None:
            times.append(expires)
        if self.rates.any:
            times += self._rated.times
        return min(times, default=None)

    def settle(
        self, item: Item, node: NodeLoad | None, held: Assignment | None = None, *, applied: bool, token_stale: bool,
        doubtful_at: int | None, now: float, revision: int = 0, wall_ms: int = 0,
    ) -> None:
        """What became of a claim, by its reservation (or, without a node, of a split). Meanwhile the bundle may have
        come back, and have been given to the same node once more: that is another reservation. `revision`: where the
        pieces of the split appeared, or what has taken the token's place. `doubtful_at`: it may have applied in an
        earlier try; the watch will have shown so once it has passed that revision."""
        if self.picture.deciding.get(item.key) is item:
            del self.picture.deciding[item.key]
        if held is not None and held.rated:
            self.rates.settled(held.rated, item.pending, wall_ms, begun=applied or doubtful_at is not None)
            self._rated.happened(held.rated)
        queue = self.picture.queue(item.token.queue)
        if revision > max(queue.blind_to, self.picture.revision):
            queue.blind_to = revision
            self.picture.blind.add(queue.name)
        if node is None:
            queue.splitting -= 1
            gate, jobs = self._splitting.pop((item.key, item.mod_revision))
            gate.splitting -= jobs
        elif applied:
            if not queue.running:       # all of it has ended before the answer came
                self.picture.happened(queue)
            return
        elif held is not None:
            self.claims.refused(node, item.bundle, held, self.picture.revision, now, doubtful_at=doubtful_at or 0)
        parsed = self.picture.keys.parse_job(item.key)
        if not applied and not token_stale and parsed is not None:
            self.picture.add(item, parsed)
        self.picture.happened(self.picture.queue(queue.name))

    def reserved(self, command: Reserve, mod_revision: int, *, applied: bool) -> None:
        """A rate's record is written; or is another than was seen."""
        self.rates.reserved(command.name, command.until_ms, mod_revision, applied=applied)
        self._rated.happened((command.name,))

    def expired(self, item: Item, revision: int = 0) -> None:
        """It has ended; or, at that revision, something else lies there, which the watch will show."""
        queue = self.picture.queue(item.token.queue)
        queue.splitting -= 1
        if revision > max(queue.blind_to, self.picture.revision):
            queue.blind_to = revision
            self.picture.blind.add(queue.name)
        self.picture.happened(queue)

    def decide(self, now: float, wall_ms: int = 0, budget: int = 1_000) -> list[Command]:
        """Up to `budget` commands, and what was left to say. Call again while it returns any; and at `next_ms`."""
        commands, self.picture.commands = self.picture.commands, []
        self.wall_ms = wall_ms
        if not self.picture.is_open:
            self.picture.commands = commands
            return []
        while self._due and self._due[0][0] <= wall_ms:
            queue = self.queues.get(heapq.heappop(self._due)[1])
            if queue is not None:
                self.picture.happened(queue)
        if self._closed:
            self._reopen(now)
        if self._expiries:
            self._expire(commands, budget)
        self._heavy.begin()
        if self.rates.any:
            self._rated.begin(wall_ms)
        self._openings.begin(wall_ms)
        self._turns.begin(lambda gate: self._openings.has_room(gate, now))
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
        self._paced(commands, now)
        if self.rates.any:
            commands.extend(self.rates.wanted())
        if self.picture.partial:
            commands.extend(pages_wanted(self.picture.partial, self.nodes.values(), all_seen=len(commands) < budget))
        return commands

    def _paced(self, commands: list[Command], now: float) -> None:
        picture = self.picture
        picture.held_up = self._turns.held_up or picture.limits.any_parked or bool(picture.partial)
        picture.pacing.decided(now, gave=bool(commands))

    def _reopen(self, now: float) -> None:
        """Nodes that had something for itself: it has ended, or enough time is over."""
        closed, self._closed = self._closed, []
        for until, node in closed:
            if node.alone and now < until:
                self._closed.append((until, node))
            else:
                node.open_again()

    def _expire(self, commands: list[Command], budget: int) -> None:
        """What has expired is not given out. (What blocks a serial queue waits for a person, however long.)"""
        for name, priority, key in self._expiries.due(self.wall_ms):
            queue = self.queues.get(name)
            window = queue.windows.get(priority) if queue is not None else None
            item = window.get(key) if window is not None else None
            if queue is None or window is None or item is None or item.token.blocked:
                continue
            if 0 < item.token.expires <= self.wall_ms:      # (0: it has slept meanwhile, and expires no more)
                window.remove(key)
                queue.splitting += 1            # the next of a serial queue is not its head before this has ended
                commands.append(Expire(item))
                self.picture.happened(queue)
            if len(commands) >= budget:
                return

    def _lend(self, commands: list[Command], now: float) -> None:
        """Spare slots for queues of which nothing runs."""
        if not self._turns.has_spare(now):
            return
        for queue in self._starved.now(now):
            gates = [
                gate for family in queue.families() if not (gate := family.gate).is_open and not gate.wants_empty(now)
            ]
            for gate in gates:
                gate.is_open = gate.is_spare = gate.rooms.best(now, Kind.SPARE) is not None
            command = self._next(queue, now)
            for gate in gates:
                gate.is_open = gate.is_spare = False
            if command is not None:
                commands.append(command)
                self._turns.served(queue)

    def _next(self, queue: Queue, now: float) -> Command | None:
        """What the queue gives out now: the first of its jobs that has a node."""
        if queue.settings.serial and not queue.settings.paused:
            return self._next_serial(queue, now)
        if not queue.gives_out or (self.rates.any and self._rated.rests(queue)):
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
        is_uncertain = queue.running or queue.splitting or queue.blind_to > self.picture.revision
        certain = None if is_uncertain else queue.certain_head()
        queue.rest()
        if certain is None:
            return None
        window, head = certain
        if head[2].token.blocked or self._too_early(queue, head[2].token):
            return None
        if self.rates.any and self._rated.rests(queue):
            return None
        family, lane, _ = head
        if not lane.parked:
            family.gate.enter(queue)        # it stands at this gate alone
        command = self._place(queue, window, head, now) if family.gate.is_open else None
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
            self.limits.park(token.task, token.key, lane)
            return None
        if allowed <= 0 and self.rates.any and self._rated.parks(token, lane):
            return None
        careful = self._openings.careful(gate.id.lane, self.limits.left_of_task(token.task))
        careful = careful or queue.settings.rate is not None
        pace = self.paces.of(token.task, now)
        if allowed <= 0:
            choice = None
        elif token.weight > 1:
            careful = True
            choice = self._heavy.place(gate, item, allowed, now) if not gate.is_spare else None
        elif gate.is_spare:
            choice = place_spare(gate, item, now)
        else:
            choice = place(gate, item, allowed, careful=careful or allowed < CAREFUL_BELOW, pace=pace, now=now)
        if choice is None:
            gate.is_open = allowed > 0 and allowed < CAREFUL_BELOW and not careful      # then it is this queue alone
            return None
        window.remove(item.key)
        self.picture.deciding[item.key] = item
        if isinstance(choice, Cut):
            queue.splitting += 1
            gate.splitting += item.pending
            self._splitting[item.key, item.mod_revision] = (gate, item.pending)
            return Split(item, choice.size)
        held = Assignment(
            token.task, queue.name, choice.mode, item.pending, token.lost > 0, False, token.key, since=now,
            weight=token.weight,
        )
        if self.rates.any:
            held.rated = self.rates.take(token.task, token.rated_by, queue.name, queue.settings, item.pending)
        self.claims.hold(choice.node, item.bundle, held)
        if window.tenants is not None:
            window.tenants.given(lane.fair, item.pending * token.weight)
        if held.alone:
            choice.node.is_closed = True
            self._closed.append((now + CLOSED_S, choice.node))
        return GiveClaim(item, choice.node, held, queue.settings.serial)

    def _allowed(self, queue: Queue, token: Token) -> int:
        """Jobs of this token that its limits still admit."""
        allowed = min(
            self.limits.left_of_task(token.task), self.limits.left_of_key(token.task, token.key), queue.left_of_limit
        )
        return min(allowed, self._rated.left(queue, token)) if self.rates.any else allowed
