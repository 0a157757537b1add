"""Names of bundles and jobs.

A bundle is named by its client: `<session>-<counter>`, e.g. `k3f9q2m7xa5t-0000001f`. The session is 60 random bits,
drawn once per process (again after a fork), the counter counts up: names of one session sort in the order of their
enqueues, and no name is ever used twice. A job is its bundle and its index in it; for people it is written
`k3f9q2m7xa5t_0000001f_0`: one word to a double click, a shell and a URL.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
import weakref
from collections.abc import Callable
from itertools import count

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"      # base 32 without i, l, o, u: nothing to misread
SESSION_CHARS = 12
DIGEST_BYTES = SESSION_CHARS + 4
SESSION = re.compile(rf"[{ALPHABET}]{{{SESSION_CHARS}}}\Z")
PIECE = r"\.(?:[0-9]{1,2}|x(?:[1-3][0-9]{2}|4[0-7][0-9]))"
BUNDLE = re.compile(rf"[{ALPHABET}]{{{SESSION_CHARS}}}-[0-9a-f]{{8}}(?:{PIECE})?\Z")
JOB = re.compile(rf"([{ALPHABET}]{{{SESSION_CHARS}}})[_-]([0-9a-f]{{8}})(?:[_/-]([0-9]{{1,3}}))?\Z")

NAME_CHARS_MAX, TASK_CHARS_MAX = 128, 256
NAME_RULE = f"letters, digits and _ . : @ - (at most {NAME_CHARS_MAX})"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]*\Z")
_TASK = re.compile(r"[A-Za-z0-9_<][A-Za-z0-9_.:<>@-]*\Z")
_BETWEEN = str.maketrans("", "", ".:@-")
_BETWEEN_OR_ANGLES = str.maketrans("", "", ".:@-<>")

_COUNTER_END = 1 << 32


def is_name(text: str, chars_max: int = NAME_CHARS_MAX) -> bool:
    """Whether it can name a queue, a cluster or a node. Names are path segments: letters and digits of any script, and
    _ . : @ - after the first of them; no slash, no control characters, no leading dot."""
    if not 0 < len(text) <= chars_max:
        return False
    return _NAME.match(text) is not None or (text[0] not in ".:@-" and _is_identifier(text, _BETWEEN))


def is_task_name(text: str) -> bool:
    """Task names, `module:qualname` as a rule: Python's identifiers, and `<lambda>` and `<locals>` occur."""
    if not 0 < len(text) <= TASK_CHARS_MAX:
        return False
    return _TASK.match(text) is not None or (text[0] not in ".:@->" and _is_identifier(text, _BETWEEN_OR_ANGLES))


def normal(name: str) -> str:
    """A name in the one spelling that rota knows. The same word can be typed in several ways (ö, or o and two dots);
    Python brings its identifiers to the form NFKC, and so do we."""
    return name if name.isascii() else unicodedata.normalize("NFKC", name)


def _is_identifier(text: str, but_for: dict[int, int | None]) -> bool:
    return f"_{text.translate(but_for)}".isidentifier() and unicodedata.is_normalized("NFKC", text)


def new_session(entropy: Callable[[int], bytes] = os.urandom) -> str:
    return "".join(ALPHABET[byte & 31] for byte in entropy(SESSION_CHARS))


def bundle_id(session: str, counter: int) -> str:
    return f"{session}-{counter:08x}"


def bundle_of(digest: bytes) -> str:
    """The bundle that a digest of `DIGEST_BYTES` stands for: where a name follows from its cause."""
    session = "".join(ALPHABET[byte & 31] for byte in digest[:SESSION_CHARS])
    return bundle_id(session, int.from_bytes(digest[SESSION_CHARS:], "big"))


def ordinal(index: int) -> str:
    """An index in the name of a piece or of a record: names sort as jobs do (`99` before `x100`), and below 100 they
    are what they were when no bundle had more."""
    return f"{index:02d}" if index < 100 else f"x{index}"


def index_at(text: str) -> int:
    """The index that `ordinal` wrote; 0 for an empty text."""
    return int(text.removeprefix("x") or 0)


def job_id(bundle: str, index: int) -> str:
    """The id of a job, from its bundle or from a piece of it (`<bundle>.<ordinal of its first job>`)."""
    return f"{bundle.partition('.')[0].replace('-', '_')}_{index}"


def job_ids(bundle: str, count: int) -> list[str]:
    """Those of the first so many jobs of a bundle."""
    name = job_id(bundle, 0)[:-1]
    return [f"{name}{index}" for index in range(count)]


def template_id(schedule: str) -> str:
    """The name of what a schedule's jobs are made of: the template of another schedule does not fit."""
    return _derived("template", schedule)


def tick_id(schedule: str, created_ms: int, tick_ms: int) -> str:
    """The bundle of one tick of a schedule. `created_ms` tells apart schedules that bore its name one after another."""
    return _derived("tick", schedule, str(created_ms), str(tick_ms))


def idempotent_id(cluster: str, key: str) -> str:
    """The bundle of whatever is enqueued in that cluster with this idempotency key."""
    text = f"{cluster}\0{key}".encode("utf-8", "surrogateescape")
    return bundle_of(hashlib.blake2b(text, digest_size=DIGEST_BYTES, person=b"rota-idempotency").digest())


def _derived(*parts: str) -> str:
    """A bundle whose name follows from its cause: who makes it again makes the same."""
    return bundle_of(hashlib.blake2b("\0".join(parts).encode(), digest_size=DIGEST_BYTES).digest())


def parse_job_id(text: str) -> tuple[str, int]:
    """(bundle, index). A bare bundle means its first job; ids were `<bundle>/<index>` once, which is read as well.
    Raises ValueError with advice."""
    match = JOB.match(text)
    if match is None:
        raise ValueError(f"{text!r:.80} is not a valid job id; one looks like k3f9q2m7xa5t_0000001f_0")
    return f"{match[1]}-{match[2]}", int(match[3] or 0)


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
