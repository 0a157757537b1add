"""What jobs remember of what they have done, below `steps/`: beside the moves, for no token moves by it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from rota.client.model import JOBS_PER_BUNDLE_MAX, Step
from rota.client.wire.keyring import Seal

from ...ledger.commits import Write, created
from ...ledger.ledger import Condition, Delete, Put, Target, prefix_end
from ..keys import Keys
from ..records import Token
from ..steps import StepRecord, stamp_of
from .ops import Conditions, Ops


def remembered(keys: Keys, seal: Seal, bundle: str, index: int, number: int, step: Step) -> Put:
    """One step of a job, signed."""
    record = StepRecord(step, stamp_of(seal, bundle, index, step))
    return Put(keys.step(bundle, index, number), msgspec.msgpack.encode(record))


def remember(who: Conditions, claim: bytes, created_at: int, step: Put) -> Write:
    """Store it, if the run that has made it is the one that counts: its claim, created then, still lies there. (Its
    claim says already that its jobs remember something.)"""
    return Write((*who, Condition(claim, Target.CREATE, "==", created_at), created(step.key, 0)), (step,))


FORGOTTEN_MAX = 50
"""Ranges that one write deletes of a wide bundle, beside what else it does. What of a job that has ended is left where
there are more of them is never read, and goes with the sweep (`duties/sweeping.py`)."""


def forget_late(keys: Keys, bundle: str, token: Token) -> Ops:
    """Its bundle ends, or goes on without those that have ended: what came late of these goes. Nothing more can come:
    the claim that it was stored under is gone."""
    return forget_steps(keys, bundle, token.late_indexes)


def forget_steps(keys: Keys, bundle: str, indexes: Iterable[int]) -> Ops:
    """These jobs have ended."""
    prefixes = [keys.steps_of(bundle, index) for index in indexes]
    if len(prefixes) <= FORGOTTEN_MAX:
        return tuple(Delete(prefix, prefix_end(prefix)) for prefix in prefixes)
    return tuple(_ranges(keys, bundle, set(prefixes)))[:FORGOTTEN_MAX]


def _ranges(keys: Keys, bundle: str, wanted: set[bytes]) -> Iterator[Delete]:
    """The same, with one range for those that are neighbours in the store."""
    first = last = b""
    for prefix in (*sorted(keys.steps_of(bundle, index) for index in range(JOBS_PER_BUNDLE_MAX)), b""):
        if prefix in wanted:
            first, last = first or prefix, prefix
        elif first:
            yield Delete(first, prefix_end(last))
            first = b""
