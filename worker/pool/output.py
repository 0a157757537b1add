"""What runners print. It is passed on to the node's stderr, which the guard always empties, and the end of it is
remembered: if a runner dies, its last words say why."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re

READ_BYTES = 64 * 1024
TAIL_BYTES = 4 * 1024
WORDS_CHARS_MAX = 500
_CRASH = re.compile(r"(Fatal Python error|terminate called|[\w/.-]*: symbol lookup error)")


class Output:
    """The reading end of one runner's stdout and stderr."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._fd = descriptor
        self._tail = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._read)

    def close(self) -> None:
        """Read what is left, and stop."""
        if self._fd >= 0:
            while self._read():
                pass
        if self._fd >= 0:
            self._end()

    def forget(self) -> None:
        """What was written so far is no reason for what comes."""
        self._tail = b""

    def last_words(self) -> str:
        """In one line; "" if there are none. How it crashed, if it says so, else the last lines."""
        text = self._tail.decode(errors="replace").strip()
        crash = _CRASH.search(text)
        words = text[crash.start():] if crash is not None else "\n".join(text.splitlines()[-3:])
        words = " ".join(words.split())
        if len(words) <= WORDS_CHARS_MAX:
            return words
        return words[:WORDS_CHARS_MAX] + "…" if crash is not None else "…" + words[-WORDS_CHARS_MAX:]

    def _read(self) -> bool:
        """True if there was something."""
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._end()
            return False
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        with contextlib.suppress(OSError):      # a stderr that is closed
            while data:
                data = data[os.write(2, data):]
        return True

    def _end(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
