"""What a job says while it runs, on its way to the node: how far it is, and its log lines. Coalesced: a job that says
much says it to its node a few times a second, and what it said last always arrives."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from rota.client.errors import InvalidJob
from rota.client.wire.views import LogLine

from ..channel.frames import ProgressUpdate, Work
from .context import running
from .environment import forks

EVERY_S = 0.25
SAYINGS_MAX = 1_000
"""What jobs say whose outcome is told already (from threads that go on) begins anew: of more than this, what has been
told is forgotten."""
NOTE_CHARS_MAX = 200
LINE_CHARS_MAX = 1_000
NUMBER_MAX = 1e15

JobRef = tuple[int, int]
MemoryT = TypeVar("MemoryT")


class _Saying:
    """Of one job, since it was last told."""

    __slots__ = ("dropped", "lines", "progress", "sent_at")

    def __init__(self, keep: int) -> None:
        self.sent_at = 0.0
        self.dropped = 0
        self.progress: tuple[float, float | None, str, float] | None = None
        self.lines: deque[LogLine] = deque(maxlen=keep or 1)


class Telling:
    """Of one runner: `send` may be called from any thread. Nothing is started before a job says something."""

    def __init__(self) -> None:
        self.send: Callable[[ProgressUpdate], None] | None = None
        self.used = False
        """Whether a job has said anything that was not told yet."""
        self.memories: dict[JobRef, Any] = {}
        """What running jobs remember (`steps.py`), until they have ended."""
        self._lock = threading.RLock()      # a signal handler or a finalizer may log in the middle of it
        self._sayings: dict[JobRef, _Saying] = {}
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    def progress(self, work: Work, index: int, done: float, total: float | None, note: str) -> None:
        if forks.forked:            # its parent's thread may have held the lock
            return
        with self._lock:
            self._of(work, index, 0).progress = (done, total, note, time.time())
        self._look(work.key, index)

    def line(self, work: Work, index: int, keep: int, line: LogLine) -> None:
        if forks.forked:
            return
        with self._lock:
            saying = self._of(work, index, keep)
            saying.dropped += len(saying.lines) == keep
            saying.lines.append(line)
        self._look(work.key, index)

    def ended(self, work: Work, index: int) -> None:
        """Tell what was not told yet: its outcome comes next."""
        with self._lock:
            update = self._take((work.key, index))
            self._sayings.pop((work.key, index), None)
            self.memories.pop((work.key, index), None)
            self.used = bool(self._sayings or self.memories)
        self._tell(update)

    def remember(self, work: Work, index: int, memory: MemoryT) -> MemoryT:
        """Keep this for the run of a job, unless something is kept for it; returns what is kept."""
        with self._lock:
            self.used = True
            kept: MemoryT = self.memories.setdefault((work.key, index), memory)
            return kept

    def _of(self, work: Work, index: int, keep: int) -> _Saying:
        self.used = True
        saying = self._sayings.get((work.key, index))
        if saying is None:
            if len(self._sayings) >= SAYINGS_MAX:
                self._forget_sent()
            saying = self._sayings[work.key, index] = _Saying(keep)
        elif keep and saying.lines.maxlen != keep:
            saying.lines = deque(saying.lines, keep)
        return saying

    def _forget_sent(self) -> None:
        before = time.monotonic() - EVERY_S
        self._sayings = {
            ref: saying for ref, saying in self._sayings.items()
            if saying.progress is not None or saying.lines or saying.sent_at > before
        }

    def _look(self, key: int, index: int) -> None:
        """Tell it at once, or let the thread do so in a moment."""
        with self._lock:
            saying = self._sayings.get((key, index))
            due = saying is not None and time.monotonic() >= saying.sent_at + EVERY_S
            update = self._take((key, index)) if due else None
            if self._thread is None and not due:
                self._thread = threading.Thread(target=self._repeat, name="rota telling", daemon=True)
                self._thread.start()
            self._tell(update)            # within the lock: a job's outcome must not overtake what it said
        if update is None:
            self._wake.set()

    def _take(self, ref: JobRef) -> ProgressUpdate | None:
        saying = self._sayings.get(ref)
        if saying is None or (saying.progress is None and not saying.lines):
            return None
        update = ProgressUpdate(*ref, saying.progress, list(saying.lines), saying.lines.maxlen or 0, saying.dropped)
        saying.progress, saying.sent_at, saying.dropped = None, time.monotonic(), 0
        saying.lines.clear()
        return update

    def _repeat(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            time.sleep(EVERY_S)
            with self._lock:
                for ref in list(self._sayings):
                    self._tell(self._take(ref))

    def _tell(self, update: ProgressUpdate | None) -> None:
        if update is not None and self.send is not None and not forks.forked:
            self.send(update)


telling = Telling()


def progress(done: float, total: float | None = None, note: str = "") -> None:
    """Say how far the running job is: for `handle.progress()`, `handle.events()`, `rota job` and whoever watches.

    Args:
        done: how much is done, in whatever unit.
        total: of how much; None if that is not known.
        note: what it is about now, one line; at most 200 characters are kept.

    Call it as often as you like: it is stored twice a second at most, and what was said last always arrives. It is gone
    when the job has ended. A restart of the job's clock is something else: `rota.touch()`.

    Raises:
        RuntimeError: no job runs here.
        InvalidJob: `done` or `total` is no number from 0 on.
    """
    job = running.get()
    if job is None:
        raise RuntimeError("rota.progress(): no job is running here")
    for name, value in (("done", done), ("total", 0 if total is None else total)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= NUMBER_MAX:
            raise InvalidJob(f"rota.progress({name}={value!r:.40}): a number from 0 on")
    if not isinstance(note, str):
        raise InvalidJob(f"rota.progress(note={note!r:.40}): a text")
    if telling.send is not None:
        known_total = None if total is None else float(total)
        telling.progress(*job, float(done), known_total, one_line(note, NOTE_CHARS_MAX))


def heard(record: logging.LogRecord, keep_of: Callable[[Work], int]) -> None:
    """A log record was made while a job runs: it is kept if the job's log is."""
    job = running.get()
    keep = keep_of(job[0]) if job is not None else 0
    if job is None or not keep or telling.send is None:
        return
    text = record.getMessage()
    if record.name.startswith("rota."):     # that it failed: the traceback is kept with the error
        text = text.partition("\n")[0]
    if record.exc_info and record.exc_info[1] is not None:
        text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
    telling.line(*job, keep, LogLine(record.created, record.levelname, one_line(text, LINE_CHARS_MAX)))


def one_line(text: str, chars_max: int) -> str:
    line = " ".join(text[: 4 * chars_max].split())
    line = line.encode("utf-8", "replace").decode()         # lone surrogates cannot be stored
    return line if len(line) <= chars_max else line[: chars_max - 1] + "…"
