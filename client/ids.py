"""Names of bundles and jobs.

A bundle is named by its client: `<session>-<counter>`, e.g. `k3f9q2m7xa5t-0000001f`. The session is 60 random bits,
drawn once per process (again after a fork), the counter counts up: names of one session sort in the order of their
enqueues, and no name is ever used twice. A job is `<bundle>/<index>`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"      # base 32 without i, l, o, u: nothing to misread
SESSION_CHARS = 12
BUNDLE = re.compile(rf"[{ALPHABET}]{{{SESSION_CHARS}}}-[0-9a-f]{{8}}(\.\d{{1,2}})?\Z")
JOB = re.compile(rf"([{ALPHABET}]{{{SESSION_CHARS}}}-[0-9a-f]{{8}})/(\d{{1,2}})\Z")


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
        raise ValueError(f"{text!r} is no job id; one looks like k3f9q2m7xa5t-0000001f/0")
    return match[1], int(match[2])
