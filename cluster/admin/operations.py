"""What people do to a running cluster: settings of queues, the failed set, cancelling. Any node does it, guarded by
what it saw, so that two people at once do not undo each other.
"""

from __future__ import annotations

import random

import msgspec

from rota.client.errors import InvalidJob, LedgerUnavailable
from rota.client.ids import NAME_RULE, job_id, parse_job_id
from rota.client.options import rates
from rota.client.wire.views import FailedFilter, Verb

from ..context import IdentityContext
from ..ledger.commits import unmodified
from ..ledger.ledger import Delete, Put
from ..ledger.scan import scan
from ..state import moves
from ..state.discarding import Discards
from ..state.keys import is_name
from ..state.quarantine import ADVICE
from ..state.records import QueueRecord, Token, decode, encode, header_of, waiting_at
from ..state.splitting import first_of
from ..state.words import Words
from . import bulk
from .status import Status

PAGE = 500
SETTINGS = ("paused", "serial", "max_concurrency", "rate", "max_waiting", "on_full")
"""Of a queue."""

TRIES_MAX = 50


class Operations:
    """One identity's. Raises `InvalidJob` for what makes no sense, `LedgerError` where the store does not take it."""

    def __init__(self, context: IdentityContext, status: Status, rng: random.Random) -> None:
        self._ledger = context.ledger
        self._commits = context.commits
        self._keys = context.keys
        self._clock = context.clock
        self._status = status
        self._member = context.member
        self._discards = Discards(context.ledger, context.keys, context.seal, context.buckets)
        self._rng = rng
        self._seal = context.seal
        self._words = Words(context.seal)

    # -- queues ------------------------------------------------------------------------------------------------------

    async def set_queue(self, queue: str, changes: dict[str, object]) -> QueueRecord:
        """Change settings of a queue (`SETTINGS`); returns them all."""
        if not is_name(queue):
            raise InvalidJob(f"{queue[:200]!r} is not a valid queue name: {NAME_RULE}")
        unknown = sorted(changes.keys() - set(SETTINGS))
        if unknown:
            raise InvalidJob(f"a queue has no setting {', '.join(unknown)}; it has {', '.join(SETTINGS)}")
        if isinstance(changes.get("rate"), str):
            changes = changes | {"rate": msgspec.to_builtins(rates.rate(str(changes["rate"]), "rate"))}
        key = self._keys.queue(queue)
        for _ in range(TRIES_MAX):
            page = await self._ledger.read(key)
            old = page.records[0] if page.records else None
            record = (decode(QueueRecord, old.value) if old is not None else None) or QueueRecord()
            if (most := changes.get("max_concurrency")) is not None and most in (0, False):
                raise InvalidJob(f"queue {queue}: max_concurrency is at least 1; to stop a queue, pause it")
            if (most := changes.get("max_waiting")) is not None and most in (0, False):
                raise InvalidJob(f"queue {queue}: max_waiting is at least 1, or null for no bound")
            try:
                new = msgspec.convert(msgspec.to_builtins(record) | changes, QueueRecord)
            except msgspec.ValidationError as error:
                raise InvalidJob(f"queue {queue}: {error}") from None
            condition = unmodified(key, old.mod_revision if old is not None else 0)
            op: Put | Delete = Put(key, encode(new)) if new != QueueRecord() else Delete(key)
            if (old is None and isinstance(op, Delete)) or (old is not None and new == record):
                return new
            if (await self._commits.write((self._member, condition), (op,))).applied:
                return new
        raise LedgerUnavailable(f"the settings of queue {queue} are being changed by others all the time")

    async def head(self, queue: str, verb: str) -> str:
        """Of a serial queue's head: `retry` it now, or `skip` it (to the failed set). Returns its id."""
        async for record in scan(self._ledger, self._keys.queue_jobs(queue), size=PAGE):
            token, place = waiting_at(self._keys, record), self._keys.parse_job(record.key)
            if place is None:
                continue
            if token is None or not (token.blocked or token.not_before or token.attempt > 1):
                break
            bundle = place.bundle
            body = await self._body(bundle) if verb == "retry" else await self._body_if_any(bundle)
            header = header_of(body)
            index = first_of(bundle, token, header)
            at = unmodified(record.key, record.mod_revision)
            if verb == "retry":
                write = moves.retry_head((self._member,), at, token)
            else:
                skipped = self._skipped(token, bundle, index, body if header is not None else b"")
                write = moves.skip_head(self._keys, (self._member,), at, bundle, token, skipped)
            if (await self._commits.submit(write)).applied:
                return job_id(bundle, index)
            break
        raise InvalidJob(f"the head of queue {queue} has not failed: there is nothing to {verb}")

    def _skipped(self, token: Token, bundle: str, index: int, body: bytes) -> moves.Ops:
        part = self._seal.slice(body, [index]) if body else b""       # of its siblings nothing is left to run
        words = self._words
        verified = words.heard_token(bundle, token)
        return moves.fail(
            self._keys, bundle, index, words.token(bundle, verified), body=part, words=words,
            error=verified.error or "skipped", at_s=self._clock.wall(),
            reason="skipped",
        )

    async def _body(self, bundle: str) -> bytes:
        body = await self._body_if_any(bundle)
        if not body:
            raise InvalidJob(ADVICE["body missing"])
        return body

    async def _body_if_any(self, bundle: str) -> bytes:
        page = await self._ledger.read(self._keys.body(bundle))
        return page.records[0].value if page.records else b""

    # -- many jobs at once -------------------------------------------------------------------------------------------

    async def begin(self, verb: Verb, which: FailedFilter, expected: int | None = None) -> str:
        """Begin a bulk operation; returns its id."""
        return await bulk.begin(
            self._ledger, self._commits, self._keys, self._clock, self._rng, self._member, verb, which, expected
        )

    # -- cancelling --------------------------------------------------------------------------------------------------

    async def cancel(self, job_id: str) -> str:
        """Cancel a job wherever it is: `cancelled` (it had not begun), `requested` (a node holds it: it stops it, or
        has ended it), or `ended`."""
        try:
            bundle, index = parse_job_id(job_id)
        except ValueError as error:
            raise InvalidJob(str(error)) from None
        for _ in range(TRIES_MAX):
            view, record = await self._status.jobs.find(bundle, index)
            if record is None:
                if view.place in ("finished", "failed"):
                    return "ended"
                if view.place in ("running", "claimed"):        # of level `none`: its node hears of the request, too
                    await self._commits.submit(await self._discards.held((self._member,), bundle, index))
                    return "requested"
                raise InvalidJob(f"job {job_id} is unknown: it was never enqueued here, or it has ended")
            if record.key.startswith(self._keys.claims):
                await self._commits.submit(await self._discards.held((self._member,), bundle, index))
                return "requested"
            token = waiting_at(self._keys, record)
            if token is None:
                raise InvalidJob(f"the token of job {job_id} cannot be read")
            write = await self._discards.waiting((self._member,), record, token, index)
            if write is not None and (await self._commits.submit(write)).applied:
                return "cancelled"
        raise LedgerUnavailable(f"job {job_id} moves from place to place: try again")
