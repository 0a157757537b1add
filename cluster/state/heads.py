"""The heads of serial queues: what everything else in them waits for."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from rota.client.ids import job_id

from ..ledger.ledger import Get, Ledger, Record, Txn, prefix_end
from .keys import Keys, whole
from .records import Token, header_of, waiting_at
from .splitting import first_of, jobs_in
from .words import Words

HEADS_PER_READ = 64
FIRST_KEYS = 4
"""Read of each queue: what others wrote there may lie before the head."""


class Head(msgspec.Struct, frozen=True):
    """The first token of a queue, and the job that is tried first."""

    queue: str
    record: Record
    token: Token
    bundle: str
    index: int

    @property
    def job(self) -> str:
        """Its id."""
        return job_id(self.bundle, self.index)

    @property
    def advice(self) -> str:
        """What a person can do about a head that blocks."""
        return f"`rota queue retry-head {self.queue}` runs it again, `rota queue skip-head {self.queue}` leaves it out"


async def read_heads(ledger: Ledger, keys: Keys, words: Words, queues: Iterable[str]) -> list[Head]:
    """The heads of these queues; an empty queue has none."""
    names, heads = list(queues), []
    for start in range(0, len(names), HEADS_PER_READ):
        part = names[start : start + HEADS_PER_READ]
        gets = [Get(keys.queue_jobs(name), prefix_end(keys.queue_jobs(name)), limit=FIRST_KEYS) for name in part]
        answers = (await ledger.commit(Txn((), tuple(gets)))).answers
        for name, records in zip(part, answers, strict=True):
            record = next((record for record in records if keys.parse_job(record.key) is not None), None)
            token = waiting_at(keys, record) if record is not None else None
            if record is not None and token is not None:
                token = words.heard_token(record.key.rpartition(b"/")[2].decode(errors="replace"), token)
                heads.append(Head(name, record, token, *await _first_job(ledger, keys, record, token)))
    return heads


async def _first_job(ledger: Ledger, keys: Keys, record: Record, token: Token) -> tuple[str, int]:
    place = keys.parse_job(record.key)
    assert place is not None
    bundle, header = place.bundle, None
    if jobs_in(bundle, token) is None:
        page = await ledger.read(keys.body(bundle))
        header = header_of(page.records[0].value) if page.records else None
    return whole(bundle), first_of(bundle, token, header)
