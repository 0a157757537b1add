"""The heads of serial queues: what everything else in them waits for."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from rota.client.codec import decode_header
from rota.client.ids import job_id

from ..ledger.ledger import Get, Ledger, Record, Txn, prefix_end
from ..state.keys import Keys
from ..state.records import Token, decode

HEADS_PER_READ = 64


class Head(msgspec.Struct, frozen=True):
    """The first token of a queue. `job` is the one that is tried first."""

    queue: str
    record: Record
    token: Token
    job: str

    @property
    def advice(self) -> str:
        """What a person can do about a head that blocks."""
        return f"`rota queue retry-head {self.queue}` runs it again, `rota queue skip-head {self.queue}` leaves it out"


async def read_heads(ledger: Ledger, keys: Keys, queues: Iterable[str]) -> list[Head]:
    """The heads of these queues; an empty queue has none."""
    names, heads = list(queues), []
    for start in range(0, len(names), HEADS_PER_READ):
        part = names[start : start + HEADS_PER_READ]
        gets = [Get(keys.queue_jobs(name), prefix_end(keys.queue_jobs(name)), limit=1) for name in part]
        answers = (await ledger.commit(Txn((), tuple(gets)))).answers
        for name, records in zip(part, answers, strict=True):
            token = decode(Token, records[0].value) if records else None
            if token is not None:
                heads.append(Head(name, records[0], token, await _first_job(ledger, keys, records[0], token)))
    return heads


async def _first_job(ledger: Ledger, keys: Keys, record: Record, token: Token) -> str:
    """A token of one job has its index in its name; of several, the body says which are left."""
    bundle = record.key.rpartition(b"/")[2].decode(errors="replace")
    index = int(piece) if (piece := bundle.partition(".")[2]).isdigit() else 0
    if token.count > 1:
        page = await ledger.read(keys.body(bundle))
        indexes = decode_header(page.records[0].value)[0].indexes if page.records else [index]
        index = next((index for index in indexes if not token.done_bits >> index & 1), index)
    return job_id(bundle, index)
