"""What jobs remember, as it lies in the store, and as it is read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from rota.client.ids import job_id
from rota.client.model import UNREADABLE, Step, Text
from rota.client.wire.keyring import Seal

from ..ledger.ledger import Ledger
from ..ledger.scan import scan
from .keys import Keys, whole
from .records import Schema, schema

PAGE = 200


class StepRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of one job (MessagePack)."""

    step: Step
    stamp: Text = ""            # signs it, and whose it is
    v: Schema = msgspec.field(default_factory=schema)


class Foreign(NamedTuple):
    """A step is signed with a key of this id, which is not here: others have to run the job."""

    key_id: str


Steps = dict[int, dict[int, Step]]
"""By index of the job, by number of the step."""

_decode = msgspec.msgpack.Decoder(StepRecord).decode


def stamp_of(seal: Seal, bundle: str, index: int, step: Step) -> str:
    return seal.keyring.stamp(_facts(bundle, index, step), seal.cluster)


def step_in(seal: Seal, bundle: str, index: int, value: bytes) -> Step | Foreign | None:
    """None for what no node of this cluster has written."""
    try:
        record = _decode(value)
    except UNREADABLE:
        return None
    if seal.keyring.is_stamp(record.stamp, _facts(bundle, index, record.step), seal.cluster):
        return record.step
    key_id = record.stamp.rpartition(":")[0]
    return Foreign(key_id) if key_id and key_id not in seal.keyring.ids else None


async def fetch(ledger: Ledger, keys: Keys, seal: Seal, bundle: str, indexes: Iterable[int]) -> Steps | Foreign | str:
    """What these jobs remember; or the id of the key that is needed to verify it, or why it cannot be used (one of
    `quarantine.ADVICE`). Raises `LedgerError`."""
    found: Steps = {}
    for index in indexes:
        async for record in scan(ledger, keys.steps_of(bundle, index), size=PAGE):
            parsed = keys.parse_step(record.key)
            if parsed is None:
                continue            # not ours: left alone
            step = step_in(seal, bundle, index, record.value)
            if isinstance(step, Foreign):
                return step
            if step is None:
                return "steps invalid"
            found.setdefault(index, {})[parsed[2]] = step
    return found


def _facts(bundle: str, index: int, step: Step) -> tuple[object, ...]:
    signed = (step.name, step.kind, step.value, step.codec, step.began_ms, step.ended_ms)
    return ("step", job_id(whole(bundle), index), *signed)
