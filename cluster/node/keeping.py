"""A job without persistence that failed for good: from here on it is kept like any other, in the failed set."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from rota.client.codec import Seal, decode_header, slice_body
from rota.client.errors import LedgerError
from rota.client.model import Outcome
from rota.worker.pool.runners import Work

from ..clock import Clock
from ..ledger.commits import Commits, Write, created
from ..ledger.ledger import Condition
from ..state import moves
from ..state.keys import Keys
from ..state.records import Token
from ..state.words import Words

AGAIN_S = 1.0


async def keep_failure(
    work: Work, body: bytes, attempts: int, outcome: Outcome, *, commits: Commits, keys: Keys, clock: Clock, seal: Seal,
    member: Condition, node: str, order: int, wanted: Callable[[], bool],
) -> None:
    """Write it down, as soon as the store takes it; or while it is `wanted`, that is, as long as the identity lives."""
    now, error = clock.wall(), outcome.error.partition("\n")[0]
    token = Token(
        work.task, work.queue, 0, order, 1, work.mode, int(work.enqueued_at * 1000), attempts,
        signed=seal.keyring.mark(decode_header(body)[0].key_id),
    )
    words = Words(seal)
    told = words.token(work.bundle, replace(token, past=token.and_past(node, 0, int(now * 1000), error)))
    failed = moves.fail(
        keys, work.bundle, outcome.index, told, body=slice_body(body, [outcome.index]), error=outcome.error,
        traceback=outcome.traceback, node=node, at_s=now, reason="volatile", words=words,
    )
    absent = created(keys.failed_job(work.queue, work.bundle, outcome.index), 0)
    while wanted():
        try:
            await commits.submit(Write((member, absent), failed))
            return
        except LedgerError:
            await asyncio.sleep(AGAIN_S)
