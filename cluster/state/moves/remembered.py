"""What jobs remember of what they have done, below `steps/`: beside the moves, for no token moves by it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from rota.client.model import Step
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


def forget_late(keys: Keys, bundle: str, token: Token) -> Ops:
    """Its bundle ends, or goes on without those that have ended: what came late of these goes. Nothing more can come:
    the claim that it was stored under is gone."""
    return forget_steps(keys, bundle, token.late_indexes)


def forget_steps(keys: Keys, bundle: str, indexes: Iterable[int]) -> Ops:
    """These jobs have ended."""
    return tuple(
        Delete(prefix, prefix_end(prefix)) for prefix in (keys.steps_of(bundle, index) for index in indexes)
    )
