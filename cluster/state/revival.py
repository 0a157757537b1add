"""What is kept of a failed job, made into a job again. Pure; `who` says on whose behalf."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from ..clock import Clock
from ..ledger.commits import Write, unmodified
from ..ledger.ledger import Condition, Record
from . import moves
from .keys import Keys, split_job
from .records import FailedRecord, Token, decode, failure_in, header_of
from .splitting import piece_name
from .uniques import Hold
from .words import UNSIGNED_WORDS, Words


def wanted(keys: Keys, failure: Record | None) -> bytes | None:
    """The unique key that a failed job needs to run again."""
    earlier = decode(Token, failure_in(failure.value).token) if failure is not None else None
    return keys.unique(earlier.task, earlier.unique) if earlier is not None and earlier.unique else None


class Again(NamedTuple):
    """`write`: what puts it into its queue, by its order and (as in `enqueue`) the tail of that."""

    queue: str
    write: Callable[[int, Condition | None], Write]


def retry(
    keys: Keys, clock: Clock, who: moves.Conditions, record: Record, failed: FailedRecord, failure: Record | None,
    hold: Hold | None = None, *, words: Words = UNSIGNED_WORDS,
) -> Again | None:
    """Put it at the end of its queue, as a first attempt. None: there is nothing that could be run. `hold`: how to have
    what it wants for itself (`wanted`)."""
    if failure is None:
        return None
    kept = failure_in(failure.value)
    bundle, index = split_job(failed.id)
    header, earlier = header_of(kept.body), decode(Token, kept.token)
    if header is None or header.bundle != bundle:
        return None
    past = words.heard_token(bundle, earlier).past if earlier else ()
    token = Token(          # what the body says is signed, what its token said may be why it was set aside
        header.task, header.queue, header.priority if header.v > 1 or earlier is None else earlier.priority, 0, 1,
        header.mode, int(clock.wall() * 1000), python=header.python, function=header.function,
        key=header.key if header.v > 1 or earlier is None else earlier.key,
        signed=earlier.signed if earlier else header.key_id, past=past,
        unique=earlier.unique if earlier and hold is not None else "",
        until_begun=earlier.until_begun if earlier else False,
        inputs=earlier.inputs if earlier else True,       # (it costs a read to find that there are none)
        steps=earlier.steps if earlier else True,
    )
    if earlier is not None:        # (where it may run, and what it counts as: no body says that)
        token = replace(
            token, weight=earlier.weight, fair=earlier.fair, rate_key=earlier.rate_key, requires=earlier.requires
        )
    at, stamped = unmodified(record.key, record.mod_revision), words.token(bundle, token)

    def write(order: int, tail: Condition | None) -> Write:
        return moves.revive(
            keys, who, at, failure.key, piece_name(bundle, [index]), replace(stamped, order=order), kept.body, hold,
            tail,
        )

    return Again(header.queue, write)
