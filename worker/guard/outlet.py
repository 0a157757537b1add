"""The log's way out. What node, runners and jobs write goes into one pipe that the guard always empties, and from there
to stderr as fast as that takes it. So whoever reads the log may stall or die, and nobody waits for him: lines that find
no room are dropped, counted, and the count is said."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import stat
import time

KEPT_BYTES_MAX = 256 * 1024
LINE_BYTES_MAX = 16 * 1024
"""A line that has no end by then is cut."""

CHUNK_BYTES = 4096
"""A pipe that poll calls writable has room for so much (PIPE_BUF)."""

READ_BYTES = 64 * 1024
PIPE_BYTES = 1024 * 1024
LAST_S = 1.0


class Outlet:
    """Belongs to one loop: `pump` when `source` can be read, `flush` when `target` can be written and `pending`.
    `source` is None where stderr cannot stall: then everybody writes to it directly."""

    def __init__(self) -> None:
        self.source: int | None = None
        self.sink = 2                   # what children get as their stderr
        self.target = 2
        self._kept = bytearray()        # whole lines
        self._tail = bytearray()        # the beginning of one
        self._dropped = 0
        self._lost = False
        mode = os.fstat(2).st_mode
        if not stat.S_ISREG(mode) and not (stat.S_ISCHR(mode) and not os.isatty(2)):
            self._interpose()

    def _interpose(self) -> None:
        self.source, self.sink = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.source, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.sink, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        try:                            # a description of our own, that others' writes go on waiting on theirs
            self.target = os.open("/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:                 # a socket, or a pipe that another user made
            self.target = os.dup(2)

    @property
    def pending(self) -> bool:
        return bool(self._kept)

    def pump(self) -> bool:
        """Take one read's worth. False if there was nothing."""
        assert self.source is not None
        try:
            data = os.read(self.source, READ_BYTES)
        except BlockingIOError:
            return False
        self._feed(data)
        self.flush()
        return True

    def say(self, text: str) -> None:
        """A line of the guard's own. What is not printable is escaped, as elsewhere (by `client/escape.py`: it cannot
        be imported here)."""
        text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
        line = self._line(f"{text:.900}")
        if self.source is None:
            with contextlib.suppress(OSError):
                os.write(2, line)
            return
        self._keep(line)
        self.flush()

    @staticmethod
    def _line(text: str) -> bytes:
        """As text, or as a record of `client/json_log.py`, which cannot be imported here either."""
        if os.environ.get("ROTA_LOG_FORMAT") != "json":
            return f"rota guard: {text}\n".encode(errors="backslashreplace")
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return json.dumps({"at": at, "level": "warning", "logger": "rota.guard", "message": text}).encode() + b"\n"

    def _feed(self, data: bytes) -> None:
        end = data.rfind(b"\n") + 1
        if end:
            self._keep(bytes(self._tail) + data[:end])
            self._tail.clear()
        self._tail += data[end:]
        if len(self._tail) > LINE_BYTES_MAX:
            self._keep(bytes(self._tail) + b"\n")
            self._tail.clear()

    def _keep(self, lines: bytes) -> None:
        if self._lost:
            return
        if len(self._kept) + len(lines) > KEPT_BYTES_MAX:
            self._dropped += lines.count(b"\n")
        else:
            self._kept += lines

    def flush(self) -> None:
        """Write what stderr takes now."""
        while self._kept and self._writable():
            end = self._kept.rfind(b"\n", 0, CHUNK_BYTES) + 1 or CHUNK_BYTES
            try:
                del self._kept[: os.write(self.target, self._kept[:end])]
            except BlockingIOError:
                return
            except OSError:             # whoever read it is gone
                self._lost = True
                self._kept.clear()
        if self._dropped and len(self._kept) <= KEPT_BYTES_MAX // 2:
            dropped, self._dropped = self._dropped, 0
            self._keep(self._line(f"{dropped:,} lines of the log are lost: whoever reads it had stalled"))

    def _writable(self) -> bool:
        poller = select.poll()
        poller.register(self.target, select.POLLOUT)
        return bool(poller.poll(0))

    def close(self) -> None:
        """What is left, if stderr takes it within a second."""
        if self.source is None:
            return
        while self.pump():
            pass
        self._keep(bytes(self._tail) + b"\n" if self._tail else b"")
        poller = select.poll()
        poller.register(self.target, select.POLLOUT)
        while (self._kept or self._dropped) and poller.poll(LAST_S * 1000):
            before = len(self._kept)
            self.flush()
            if before and len(self._kept) == before:
                return
