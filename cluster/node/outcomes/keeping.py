"""A job without persistence that failed for good: from here on it is kept like any other, in the failed set."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from rota.client.errors import LedgerError
from rota.client.model import Outcome
from rota.client.wire.codec import decode_header
from rota.worker.channel.frames import Work

from ...context import IdentityContext
from ...ledger.commits import Write, created
from ...state import moves
from ...state.directory import Directory
from ...state.records import Token
from ...state.words import Words
from ..membership.standing import Standing

AGAIN_S = 1.0


class KeptFailures:
    """One node's."""

    def __init__(self, standing: Standing, directory: Directory) -> None:
        self._standing = standing
        self._directory = directory

    def keep(self, work: Work, body: bytes, attempts: int, outcome: Outcome) -> None:
        """Have it written down, if there is an identity to do so; returns at once."""
        context, tasks = self._standing.context, self._standing.tasks
        if context is not None and tasks is not None:
            write = self._write(context, work, body, attempts, outcome)
            tasks.create_task(write, name="keep-failure")

    async def _write(
        self, context: IdentityContext, work: Work, body: bytes, attempts: int, outcome: Outcome
    ) -> None:
        """As soon as the store takes it, and as long as the identity lives."""
        write = _failure(context, self._directory.revision, work, body, attempts, outcome)
        while self._standing.context is context:
            try:
                await context.commits.submit(write)
                return
            except LedgerError:
                await asyncio.sleep(AGAIN_S)


def _failure(context: IdentityContext, order: int, work: Work, body: bytes, attempts: int, outcome: Outcome) -> Write:
    keys, node, seal = context.keys, context.node, context.seal
    now, error = context.clock.wall(), outcome.error.partition("\n")[0]
    token = Token(
        work.task, work.queue, 0, order, 1, work.mode, int(work.enqueued_at * 1000), attempts,
        signed=seal.keyring.mark(decode_header(body)[0].key_id),
    )
    words = Words(seal)
    stamped = words.token(work.bundle, replace(token, past=token.and_past(node, 0, int(now * 1000), error)))
    failed = moves.fail(
        keys, work.bundle, outcome.index, stamped, body=seal.slice(body, [outcome.index]), error=outcome.error,
        traceback=outcome.traceback, node=node, at_s=now, reason="volatile", words=words,
    )
    absent = created(keys.failed_job(work.queue, work.bundle, outcome.index), 0)
    return Write((context.member, absent), failed)
