"""The short way of a lone enqueue that its thread waits for: on a socket of its own, without the clients' loop.

Over the loop each call costs two changes of thread, there and back. A thread that enqueues in a loop, one job after the
other, alone, takes this way after a few of them. Several at a time travel together over the loop, as before. Whatever
does not go well here is asked again there, as the same bundle: a receipt answers what was stored already.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from ..calls.order import Order
from ..errors import RotaError
from ..ids import Names
from ..model import Enqueue, Receipt
from ..process import threads
from ..transports.connection import UNSURE, Connection, is_asked_again, outcomes
from ..transports.direct import DirectLink, Lost
from ..transports.transport import Patience
from ..wire import frames as wire
from ..wire.keyring import Seal
from .coalesce import OpenBundle, Ref

AFTER = 8
"""So many calls in a row, none with another beside it: before, a connection more would not be worth it."""

IDLE_S = 10.0
"""A socket that has not been used for so long is left. A node pings after twice that, and nobody would answer."""

PAUSE_S = 10.0
"""Between an attempt to connect that failed and the next."""

CONNECT_S, ANSWER_S = 1.0, 10.0
PAYLOAD_BYTES_MAX = 64 * 1024


class Again(NamedTuple):
    """To be asked over the loop. `unsure`: it may be stored already. `spent_s`: of its time, here."""

    bundle: Enqueue
    unsure: bool
    spent_s: float


class Express:
    """Safe from many threads; it serves one at a time and has nothing for the others."""

    def __init__(
        self, connection: Connection, names: Names, *, retry_s: float, wall: Callable[[], float] = time.time
    ) -> None:
        self._connection = connection
        self._names = names
        self._wall = wall
        self._answer_s = min(ANSWER_S, retry_s / 2)
        self._lock = threading.Lock()
        self._link: DirectLink | None = None
        self._row = 0
        self._used = self._not_before = 0.0
        self.seen_revision = 0
        """The newest revision that an answer this way has told."""
        self._closed = False

    def enqueue(self, order: Order, seal: Seal, seen_revision: int, *, alone: bool) -> Ref | Again | None:
        """Where the job is stored, or what to ask again; None: nothing was done. Raises what the node refuses it
        with. `order` needs no preparation; `alone`: nothing is under way on the loop."""
        route = order.route
        if not self._lock.acquire(blocking=False):
            self._row = 0
            return None
        try:
            if not alone:
                self._row = 0
                return None
            if len(order.payload) > PAYLOAD_BYTES_MAX or route.retry_s is not None or route.connect_s is not None:
                return None
            link = self._ready(seal.cluster)
            if link is None:
                return None
            bundle = OpenBundle(route, 0.0)
            bundle.add(order.payload, order.codec)
            made = bundle.close(self._names.next(), seal, self._wall(), 0.0)
            return self._ask(link, made, seen_revision)
        finally:
            self._lock.release()
            if self._closed:
                self.close()

    async def again(self, asked: Again, seen_revision: int, patience: Patience) -> Receipt:
        """Ask over the loop. Raises what `enqueue` raises."""
        (answer,) = await self._connection.enqueue([asked.bundle], seen_revision, patience, tried=asked.unsure)
        if isinstance(answer, RotaError):
            raise answer
        return answer

    def close(self) -> None:
        """The socket of a call that is under way is closed when that has ended."""
        self._closed = True
        if self._lock.acquire(blocking=False):
            self._leave()
            self._lock.release()

    def _ready(self, cluster: str) -> DirectLink | None:
        now, idle_s = time.monotonic(), time.monotonic() - self._used
        self._used = now
        if self._link is not None and (idle_s > IDLE_S or self._link.has_news()):
            self._leave()
        if self._link is None:
            self._row = self._row + 1 if idle_s <= IDLE_S else 1
            address = self._connection.address()
            if self._row <= AFTER or now < self._not_before or address is None or threads.are_greenlets():
                return None
            try:
                self._link = DirectLink.open(address, cluster, connect_s=CONNECT_S, answer_s=self._answer_s)
            except (Lost, OSError, ValueError):         # (ValueError: a name that only the other resolver takes)
                self._not_before = now + PAUSE_S
        return self._link

    def _ask(self, link: DirectLink, bundle: Enqueue, seen_revision: int) -> Ref | Again:
        request = wire.EnqueueRequest(0, max(seen_revision, self.seen_revision), [bundle])
        answered, began = False, time.monotonic()
        try:
            reply = link.ask(request)
            answered = True
        except (Lost, OSError):
            return Again(bundle, True, time.monotonic() - began)
        finally:
            if not answered:        # by whatever it was cut off: an answer may still come, to nobody
                self._leave()
        answer = wire.error_of(reply.refusal) if isinstance(reply, wire.ErrorFrame) else outcomes(reply, 1)[0]
        if not isinstance(answer, Receipt):
            if is_asked_again(answer):
                return Again(bundle, isinstance(answer, UNSURE), time.monotonic() - began)
            raise answer
        self.seen_revision = max(self.seen_revision, answer.revision)
        return Ref(answer.bundle, 0, answer.level, answer.existing)

    def _leave(self) -> None:
        self._row = 0
        if self._link is not None:
            self._link.close()
            self._link = None
