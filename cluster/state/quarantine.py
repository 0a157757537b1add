"""What cannot be run and must not block: it goes to the failed set with its bytes, for a person to look at. Pure."""

from __future__ import annotations

import msgspec

from ..clock import Clock
from ..ledger.commits import Write, unmodified
from ..ledger.ledger import Delete, Guard, Put, Record
from .keys import Keys, whole
from .records import FailedRecord, Failure, encode

ADVICE = {
    "unreadable": "the token is no record that this release of rota can read; its bytes are kept",
    "body missing": "the arguments of this job are gone from the store",
    "bad signature": "the job is unsigned, or signed with a key that this node does not have",
    "lost": 'its node was lost while it may have been running, and its task says on_orphan="fail"',
    "orphaned": "its node was lost three times while it ran: it may be what kills them",
}


def quarantine_token(
    keys: Keys, clock: Clock, record: Record, guards: tuple[Guard, ...], reason: str
) -> Write:
    """Move one unreadable token below jobs/, scheduled/ or claims/ into the failed set."""
    bundle = record.key.rpartition(b"/")[2].decode(errors="replace") or "unnamed"
    queue = "unknown"
    if (parsed := keys.parse_job(record.key)) is not None:
        queue = parsed.queue
    failed = FailedRecord(f"{whole(bundle)}/0", "", queue, ADVICE[reason], 0, "", clock.wall(), reason)
    failure = Failure(b"", "", record.value)
    return Write(
        (*guards, unmodified(record.key, record.mod_revision)),
        (
            Delete(record.key),
            Put(keys.failed_job(queue, bundle, 0), encode(failed)),
            Put(keys.failure(bundle, 0), msgspec.msgpack.encode(failure)),
        ),
    )
