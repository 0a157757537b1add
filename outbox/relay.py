"""The relay: moves the rows of an outbox into rota, in their order, and deletes them.

One relay works at a time for each outbox (by its name): it has its turn from the cluster, on a lease of etcd, and
another takes over when that ends. That keeps the order; it does not carry what is safe. A row is moved under the name
that it holds, and a bundle that was accepted is recognised for `remember` at least, so a move that is repeated after
a crash, or made by two at once, is the same move. What cannot be recognised any more is looked up, and set aside if
that leaves a doubt: never moved twice, and never lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from os import PathLike
from typing import Any, Self, TypeVar
from urllib.parse import quote

from rota.client import errors
from rota.client.api.engine import Engine
from rota.client.api.requests import open_engine
from rota.client.errors import ConfigError, InvalidJob, JobUnknown, RotaError
from rota.client.ids import NAME_RULE, is_name, job_id, new_session
from rota.client.model import Enqueue, Receipt
from rota.client.options import checks as options
from rota.client.settings.config import ClientConfig, client_config
from rota.client.wire.keyring import Keyring
from rota.client.wire.views import OutboxTurn

from .rows import ERROR_CHARS_MAX, Row, Rows, bundle_of, now_ms, opened, route_of

log = logging.getLogger("rota.outbox")

T = TypeVar("T")

BATCH = 200
"""Rows in one go: one read, one note that they are being moved, one deletion."""

POLL_S = 1.0
"""How long a row waits at the most for a relay that nobody wakes."""

REMEMBER_S = 3_600.0
TOLD_S = 5.0
"""How often the cluster is told how many rows there are."""

LATER_S = 30.0
"""When a row is tried again that no node can take yet: no one has registered its task."""

SLICE_S = 0.5
"""How often a relay that rests looks whether it is to end."""

FRAME_BYTES = 1_000_000
PAUSE_S, PAUSE_S_MAX = 0.2, 5.0

_NOT_NOW = (
    errors.Unreachable, errors.Overloaded, errors.EnqueueUnknown, errors.Unauthorized, errors.ProtocolMismatch,
    errors.SignatureRefused, errors.ClientClosed,
)
"""The row is not to blame: it waits, and so do those behind it."""


class Relay:
    """Moves the rows of one outbox while it runs.

    Args:
        rows: the table (`outbox.rows(engine)`; `outbox.relay(engine)` makes both).
        name: of the outbox in its cluster: relays of one name take turns. Give different ones to different tables.
        urls, token, key, ca_file: as those of `rota.Client`.
        poll: how long a row waits at the most if nobody wakes the relay, in seconds or as a timedelta; five seconds
            at the most.
        remember: how long the cluster recognises a row that was moved already.
        unsigned: take rows that nobody has signed: then whoever can write to the table can run code on the nodes.
    """

    def __init__(
        self, rows: Rows, name: str = "default", *, urls: str | Iterable[str] | None = None, token: str | None = None,
        key: Keyring | str | PathLike[str] | None = None, ca_file: str | None = None,
        poll: float | timedelta = POLL_S, remember: float | timedelta = REMEMBER_S, unsigned: bool = False,
    ) -> None:
        if not is_name(name):
            raise ConfigError(f"{name!r:.80} is not a valid name of an outbox: {NAME_RULE}")
        self.name = name
        self.moved = 0
        """Rows that this relay has moved."""
        self._rows = rows
        self._config: ClientConfig = client_config(urls, token=token, key=key, ca_file=ca_file)
        self._config.tls()          # what is wrong with it is said here, and not in a thread that ends by it
        self._poll_s = options.duration_s(poll, "poll", zero=False)
        self._remember_s = options.duration_s(remember, "remember", zero=False)
        self._unsigned = unsigned
        self._holder = f"{socket.gethostname()[:60]}-{os.getpid()}-{new_session()[:6]}"
        self._until = 0.0           # our turn ends then, if it is not renewed
        self._told_at = 0.0
        self._trouble_logged = ""  # the trouble that was logged last
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # -- running it

    def run(self) -> None:
        """Move rows until `stop()` is called, from another thread or a signal handler."""
        asyncio.run(self.arun())

    def start(self) -> Self:
        """Run it in a thread of its own, beside the application. If the application ends without `stop()`, that is
        as if it had been killed: harmless."""
        self._stop.clear()
        self._thread = threading.Thread(target=self.run, name=f"rota outbox {self.name}", daemon=True)
        self._thread.start()
        return self

    def stop(self, timeout: float = 30.0) -> None:
        """End after what is being moved; returns when that is done."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def arun(self) -> None:
        """`run()` for coroutines; cancelling it is as good as `stop()`."""
        engine = open_engine(self._config)
        pause_s = PAUSE_S
        try:
            while not self._stop.is_set():
                try:
                    if await self._go(engine) < BATCH:
                        await self._rest()
                except asyncio.CancelledError:
                    raise
                except Exception as error:
                    self._complain(error)
                    await self._sleep(pause_s)
                    pause_s = min(2 * pause_s, PAUSE_S_MAX)
                    continue
                pause_s, self._trouble_logged = PAUSE_S, ""
        finally:
            await self._end(engine)

    def run_until_empty(self, timeout: float = 30.0) -> int:
        """Move what is there and return: for tests and scripts. Returns how many rows this relay has moved in all.
        Raises TimeoutError."""
        return asyncio.run(self._until_empty(timeout))

    async def _until_empty(self, timeout: float) -> int:
        engine = open_engine(self._config)
        try:
            async with asyncio.timeout(timeout):
                while await self._db(self._rows.fetch, 1, now_ms()):
                    if await self._go(engine) == 0:
                        await asyncio.sleep(PAUSE_S)
        finally:
            await self._end(engine)
        return self.moved

    async def _end(self, engine: Engine) -> None:
        """Let another relay have its turn, if a node can be told at once, and close."""
        with contextlib.suppress(RotaError, TimeoutError):
            async with asyncio.timeout(5):
                await self._ask_turn(engine, leave=True)
        await engine.close()
        self._rows.close()

    async def _go(self, engine: Engine) -> int:
        """Move a batch, if it is our turn; returns how many rows were there."""
        if not await self._has_turn(engine):
            await self._sleep(self._poll_s)
            return 0
        rows = await self._db(self._rows.fetch, BATCH, now_ms())
        if rows:
            await self._move(engine, rows)
        return len(rows)

    async def _rest(self) -> None:
        """Until somebody says that there is a row, or it is time to look."""
        until = time.monotonic() + min(self._poll_s, TOLD_S)
        while not self._stop.is_set() and (left_s := until - time.monotonic()) > 0:
            if await self._db(self._rows.wait, min(left_s, SLICE_S)):
                return

    async def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stop.is_set() and (left_s := until - time.monotonic()) > 0:     # noqa: ASYNC110 - of a thread
            await asyncio.sleep(min(left_s, SLICE_S))

    @staticmethod
    async def _db(call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.to_thread(call, *arguments)

    def _complain(self, error: Exception) -> None:
        """Once for each trouble, however long it lasts."""
        text = f"{type(error).__name__}: {error}"
        if text != self._trouble_logged:
            known = isinstance(error, RotaError)
            log.warning("outbox %s: nothing is moved now: %s", self.name, text, exc_info=None if known else error)
        self._trouble_logged = text

    # -- our turn

    async def _has_turn(self, engine: Engine) -> bool:
        """Asked anew when a third of it is over."""
        now = _clock()
        if now < self._until - self._turn_s * 2 / 3 and now < self._told_at + TOLD_S:
            return True
        return await self._ask_turn(engine)

    _turn_s = 0.0

    async def _ask_turn(self, engine: Engine, *, leave: bool = False) -> bool:
        asked = _clock()
        if leave and not self._until:
            return False
        counts = None if leave else await self._db(self._rows.counts)
        self._told_at = asked
        request: dict[str, Any] = {"holder": self._holder, "leave": leave, "moved": self.moved}
        if counts is not None:
            request |= {"waiting": counts.waiting, "aside": counts.aside, "oldest_ms": counts.oldest_ms or 0}
        path = f"/v1/outboxes/{quote(self.name, safe='')}/turn"
        turn: OutboxTurn = await engine.transport.post(path, request, OutboxTurn)
        if turn.yours and not self._until:
            log.info("outbox %s: this relay moves its rows now", self.name)
        elif self._until and not turn.yours and not leave:
            log.info("outbox %s: relay %s moves its rows now", self.name, turn.holder)
        self._turn_s, self._until = turn.ttl_s, asked + turn.ttl_s if turn.yours else 0.0
        return turn.yours

    # -- moving

    async def _move(self, engine: Engine, rows: Sequence[Row]) -> None:
        made: list[tuple[Row, Enqueue]] = []
        over: list[int] = []
        for row in rows:
            try:
                if self._is_doubtful(row):
                    over.append(await self._looked_up(engine, row))
                else:
                    made.append((row, await self._made(engine, row)))
            except RotaError as error:
                await self._set_aside(row, error)
        if made:
            await self._db(self._rows.begin, [row.id for row, _ in made], now_ms())
        trouble: RotaError | None = None
        try:
            for frame in frames(made):
                if trouble is None and not await self._has_turn(engine):
                    trouble = errors.Overloaded("another relay has its turn now")
                if trouble is None:
                    trouble = await self._send(engine, frame, over)
                else:
                    await self._db(self._rows.withdraw, [row.id for row, _ in frame])
        finally:
            if over:
                await self._db(self._rows.delete, over)
        self.moved += len(over)
        if trouble is not None:
            raise trouble

    def _is_doubtful(self, row: Row) -> bool:
        """Whether it may have been moved so long ago that the cluster need not recognise it."""
        return row.moving_ms is not None and now_ms() - row.moving_ms > (self._remember_s - LATER_S) * 1000

    @staticmethod
    async def _looked_up(engine: Engine, row: Row) -> int:
        """The row's id, if its job is there: it was moved before. Raises `InvalidJob`."""
        with contextlib.suppress(JobUnknown):
            view = await engine.transport.job(job_id(row.bundle, 0))
            if view.place != "unknown" or view.enqueued_at is not None:     # stored, and only its place is not found
                return row.id
        raise InvalidJob(
            "whether it was moved before cannot be told any more: a relay died over it longer ago than the cluster "
            "remembers. See whether its job has run; then `rota outbox retry` or `rota outbox drop`"
        )

    async def _made(self, engine: Engine, row: Row) -> Enqueue:
        patience = engine.patience()
        seal = await engine.seal(patience)
        packed = opened(row, seal.keyring, unsigned=self._unsigned)
        route = await engine.prepare(route_of(packed), packed.code, patience)
        return bundle_of(row, packed, route, seal, self._remember_s)

    async def _send(self, engine: Engine, frame: list[tuple[Row, Enqueue]], over: list[int]) -> RotaError | None:
        """Hand over some rows. Notes which have been moved; returns what keeps the others from it for now."""
        answers = await engine.send([bundle for _, bundle in frame], engine.patience())
        trouble: RotaError | None = None
        for (row, _), answer in zip(frame, answers, strict=True):
            if isinstance(answer, Receipt) or (isinstance(answer, InvalidJob) and answer.repeats == row.bundle):
                over.append(row.id)
            elif isinstance(answer, _NOT_NOW):
                trouble = trouble or answer
                if not isinstance(answer, errors.EnqueueUnknown):
                    await self._db(self._rows.withdraw, [row.id])
            else:
                await self._set_aside(row, answer)
        return trouble

    async def _set_aside(self, row: Row, error: RotaError) -> None:
        """It is to blame, as far as one can tell; the rest goes on."""
        if isinstance(error, _NOT_NOW) and not _of_the_row(error, row):
            raise error
        retry_ms = now_ms() + int(LATER_S * 1000) if isinstance(error, errors.UnknownTask) else None
        text = f"{type(error).__name__}: {error}"[:ERROR_CHARS_MAX]
        log.error("outbox %s: row %d (job %s) is set aside: %s", self.name, row.id, job_id(row.bundle, 0), text)
        await self._db(self._rows.withdraw, [row.id])
        await self._db(self._rows.set_aside, row.id, text, retry_ms)


def _of_the_row(error: RotaError, row: Row) -> bool:
    """Whether it is the row's own signature that was refused."""
    return isinstance(error, errors.SignatureRefused) and str(error).startswith(f"row {row.id} ")


def frames(made: Sequence[tuple[Row, Enqueue]]) -> list[list[tuple[Row, Enqueue]]]:
    """What may travel together: jobs that are stored at once are ordered by their names, and each process names its
    own. So rows of different processes, where they would change places, go one after the other; and so does what
    waits for a job of a row before it."""
    parts: list[list[tuple[Row, Enqueue]]] = []
    last: dict[tuple[str, int], str] = {}
    names: set[str] = set()
    size = 0
    for row, bundle in made:
        lane = (bundle.queue, bundle.priority)
        size += len(bundle.body)
        waits = bundle.terms is not None and any(one.bundle in names for one in bundle.terms.after)
        if not parts or bundle.bundle <= last.get(lane, "") or waits or size > FRAME_BYTES:
            parts.append([])
            last.clear()
            names.clear()
            size = len(bundle.body)
        parts[-1].append((row, bundle))
        last[lane] = bundle.bundle
        names.add(bundle.bundle)
    return parts


def _clock() -> float:
    """It also runs while the machine is suspended, as leases do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


