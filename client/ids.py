"""Names of bundles and jobs.

A bundle is named by its client: `<session>-<counter>`, e.g. `k3f9q2m7xa5t-0000001f`. The session is 60 random bits,
drawn once per process (again after a fork), the counter counts up: names of one session sort in the order of their
enqueues, and no name is ever used twice. A job is `<bundle>/<index>`.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Callable
from itertools import count

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"      # base 32 without i, l, o, u: nothing to misread
SESSION_CHARS = 12
BUNDLE = re.compile(rf"[{ALPHABET}]{{{SESSION_CHARS}}}-[0-9a-f]{{8}}(\.[0-9]{{1,2}})?\Z")
JOB = re.compile(rf"([{ALPHABET}]{{{SESSION_CHARS}}}-[0-9a-f]{{8}})/([0-9]{{1,2}})\Z")

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,127}\Z")
"""Cluster, queue and node names: they are path segments, so no slash, no control characters, no leading dot."""

TASK = re.compile(r"[\w<][\w.:<>@-]{0,255}\Z")
"""Task names, `module:qualname` as a rule. Python's identifiers may be any letters, `<lambda>` and `<locals>` occur."""

_COUNTER_END = 1 << 32


def is_name(text: str) -> bool:
    return NAME.match(text) is not None


def is_task_name(text: str) -> bool:
    return TASK.match(text) is not None


def new_session(entropy: Callable[[int], bytes] = os.urandom) -> str:
    return "".join(ALPHABET[byte & 31] for byte in entropy(SESSION_CHARS))


def bundle_id(session: str, counter: int) -> str:
    return f"{session}-{counter:08x}"


def job_id(bundle: str, index: int) -> str:
    """The id of a job, from its bundle or from a piece of it (`<bundle>.<index>`)."""
    return f"{bundle.partition('.')[0]}/{index}"


def parse_job_id(text: str) -> tuple[str, int]:
    """(bundle, index). A bare bundle means its first job. Raises ValueError with advice."""
    match = JOB.match(text if "/" in text else f"{text}/0")
    if match is None:
        raise ValueError(f"{text!r} is not a valid job id; one looks like k3f9q2m7xa5t-0000001f/0")
    return match[1], int(match[2])


class Names:
    """Draws bundle ids: one session, counting up. Safe from many threads; a forked child gets a session of its own."""

    def __init__(self, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._entropy = entropy
        self.renew()
        _all_names.add(self)

    def renew(self) -> None:
        """Begin a new session."""
        self._state = (new_session(self._entropy), count())

    @property
    def session(self) -> str:
        return self._state[0]

    def next(self) -> str:
        session, counter = self._state
        number = next(counter)
        if number >= _COUNTER_END:
            self.renew()
            return self.next()
        return bundle_id(session, number)


_all_names: weakref.WeakSet[Names] = weakref.WeakSet()


def _renew_all() -> None:
    for names in list(_all_names):
        names.renew()


os.register_at_fork(after_in_child=_renew_all)
