"""One job: where it is, why it waits there, and what became of its attempts. Read from the store when somebody asks."""

from __future__ import annotations

from typing import Protocol

from msgspec.structs import replace

from rota.client.errors import InvalidJob, JobUnknown, ResultInvalid
from rota.client.ids import job_id, parse_job_id
from rota.client.model import Past, Step
from rota.client.wire.keyring import Seal
from rota.client.wire.views import AttemptView, JobView, Place, ProgressView, StepView

from ..ledger.ledger import Get, Ledger, Record, Txn, prefix_end
from ..ledger.scan import scan
from ..state.directory import Directory
from ..state.keys import Keys, record_id
from ..state.records import (
    Awaiting,
    Claim,
    FinishedRecord,
    ProgressRecord,
    ReceiptRecord,
    RunningJob,
    RunningRecord,
    Token,
    claim_in,
    decode,
    failed_at,
    failure_in,
    header_of,
    waiting_at,
)
from ..state.steps import step_in
from ..state.upstream import indexes
from ..state.words import Words
from .reasons import Reasons, moment

AWAKE_S = 2.0
"""A sleep is over so long before or after the time for which its job is scheduled, at the most: they may be rounded."""

TOKENS_MAX = 400_000
"""Keys that are looked through for a token that is not where it was first put."""

ENDED = {"ok": "it ended well", "failed": "it failed", "cancelled": "it was cancelled", "expired": "it has expired"}


class Here(Protocol):
    """What a node knows of the jobs that it has, and no store does."""

    @property
    def node(self) -> str: ...

    def job(self, bundle: str, index: int) -> RunningJob | None:
        """One that runs here, or, of level `none`, lies here (then `since_ms` is 0)."""
        ...

    def results(self, bundle: str) -> list[bytes] | None:
        """Of a bundle of level `none` that was taken here."""
        ...


class Nowhere:
    """For who looks from outside of a node."""

    node = ""

    def job(self, bundle: str, index: int) -> RunningJob | None:
        return None

    def results(self, bundle: str) -> list[bytes] | None:
        return None


class Jobs:
    """`here` tells of what runs on this very node. What runs on others, their records tell, a second later."""

    def __init__(
        self, ledger: Ledger, keys: Keys, directory: Directory, reasons: Reasons, seal: Seal, here: Here
    ) -> None:
        self._ledger = ledger
        self._keys = keys
        self._directory = directory
        self._reasons = reasons
        self._seal = seal
        self._words = Words(seal)
        self._here = here

    async def job(self, job_id: str) -> JobView:
        """Raises `InvalidJob` for what is no job id."""
        bundle, index = parsed(job_id)
        view = (await self.find(bundle, index))[0]
        if view.place not in ("finished", "unknown"):
            view = await self._with_steps(view, bundle, index)
        if view.place not in ("running", "claimed"):
            return view
        page = await self._ledger.read(self._keys.progress_of(bundle, index))
        progress = decode(ProgressRecord, page.records[0].value) if page.records else None
        if progress is None or progress.attempt != view.attempt:
            return view
        return replace(view, progress=ProgressView(progress.done, progress.total, progress.note, progress.at_ms / 1000))

    async def _with_steps(self, view: JobView, bundle: str, index: int) -> JobView:
        """What it remembers, and whether it sleeps."""
        steps = []
        async for record in scan(self._ledger, self._keys.steps_of(bundle, index)):
            step = step_in(self._seal, bundle, index, record.value)
            if isinstance(step, Step):
                steps.append(step)
        if not steps:
            return view
        view = replace(view, steps=[
            StepView(step.name, step.kind, step.began_ms / 1000, step.ended_ms / 1000, len(step.value))
            for step in steps
        ])
        return _asleep(view, steps) if view.due is not None else view

    async def body(self, job_id: str) -> bytes:
        """A body with the arguments of this job alone, wherever it is; they are still signed. Raises `InvalidJob` for
        what is no job id, `JobUnknown` where no arguments are kept."""
        bundle, index = parsed(job_id)
        keys, body, finished = self._keys, self._keys.body(bundle), self._keys.finished_of(bundle)
        waiting, failure, ended = (await self._ledger.commit(Txn((), (
            Get(body, body + b"/"), Get(keys.failure(bundle, index)), Get(finished, prefix_end(finished)),
        )))).answers
        kept = [record.value for record in (*waiting, *ended)]
        kept += [failure_in(record.value).body for record in failure]
        for value in kept:
            header = header_of(value)
            if header is not None and index in header.indexes:
                return self._seal.slice(value, [index])
        raise JobUnknown(
            f"no arguments of job {job_id} are stored: it was never enqueued here, or it has ended (see keep_finished)",
            job_id,
        )

    async def find(self, bundle: str, index: int) -> tuple[JobView, Record | None]:
        """Where a job is, and the token it lies in (None if it has ended, or is unknown)."""
        keys, body, results = self._keys, self._keys.body(bundle), self._keys.bundle_results(bundle)
        answers = (await self._ledger.commit(Txn((), (
            Get(body, body + b"/"), Get(results, prefix_end(results)), Get(keys.failure(bundle, index)),
            Get(keys.receipt(bundle)), Get(keys.finished_of(bundle), prefix_end(keys.finished_of(bundle))),
        )))).answers
        id_ = job_id(bundle, index)
        if answers[2]:
            return await self._failed_job(id_, bundle, index, answers[2][0]), None
        for record in answers[0]:
            header = header_of(record.value)
            if header is not None and index in header.indexes:
                receipt = decode(ReceiptRecord, answers[3][0].value) if answers[3] else None
                name = record.key[len(keys.bodies):].decode(errors="replace")
                token = await self._token(name, header.queue, receipt)
                if token is not None:
                    view = await self._view(id_, bundle, index, token)
                    if view.place != "finished":
                        return replace(view, enqueued_at=header.enqueued_at), token
        ended = self._ended(id_, bundle, index, [record.value for record in answers[1]])
        for record in reversed(answers[4]):
            if (kept := await self._kept(id_, index, record)) is not None:
                return _with_history(kept, ended), None
        if ended is not None:
            return ended, None
        if (volatile := await self._volatile(id_, bundle, index)) is not None:
            return volatile, None
        if answers[3] or answers[1]:
            return JobView(id_, "finished", why="it has ended, and left no result"), None
        if answers[0]:
            headers = [header_of(record.value) for record in answers[0]]
            return JobView(
                id_, "unknown", why="it is moving from one place to another: ask again",
                enqueued_at=max(header.enqueued_at if header is not None else 0.0 for header in headers),
            ), None
        return JobView(
            id_, "unknown", why="it was never enqueued here, or it ended and its result has expired"
        ), None

    def _ended(self, id_: str, bundle: str, index: int, records: list[bytes]) -> JobView | None:
        for record in reversed(records):
            try:
                results = self._seal.results(bundle, record)
            except ResultInvalid:
                continue            # somebody has written it who has no key: it says nothing
            past = self._words.heard_past(results)
            for entry in results.entries:
                if entry.index == index:
                    last = Past(entry.attempts, results.node, results.began_ms, results.at_ms, ENDED[entry.status])
                    return JobView(
                        id_, "failed" if entry.status == "failed" else "finished", results.task, results.queue,
                        entry.attempts, results.node, ENDED[entry.status],
                        finished_at=results.at_ms / 1000 if results.at_ms else None, error=entry.error,
                        traceback=entry.traceback,
                        history=history((*past, last) if results.node else past),
                    )
        return None

    async def _kept(self, id_: str, index: int, body: Record) -> JobView | None:
        """What is known of a job whose `keep_finished` is not over."""
        header = header_of(body.value)
        if header is None or index not in header.indexes:
            return None
        name = body.key[len(self._keys.finished_bodies):]
        page = await self._ledger.read(self._keys.finished + f"{header.queue}/".encode() + name)
        kept = decode(FinishedRecord, page.records[0].value) if page.records else None
        if kept is None:
            return None
        return JobView(
            id_, "finished", kept.task, kept.queue, kept.attempts, kept.node, "it ended well",
            enqueued_at=header.enqueued_at, finished_at=kept.at,
        )

    async def _failed_job(self, id_: str, bundle: str, index: int, record: Record) -> JobView:
        failure = self._words.heard_failure(record_id(bundle, index), failure_in(record.value))
        known = decode(Token, failure.token) or header_of(failure.body)
        queue = known.queue if known is not None else "unknown"
        page = await self._ledger.read(self._keys.failed_job(queue, bundle, index))
        failed = failed_at(self._keys, page.records[0]) if page.records else None
        past = self._words.heard_token(bundle, known).past if isinstance(known, Token) else ()
        failed = self._words.heard_failed(failed) if failed is not None else None
        if failed is None:
            return JobView(id_, "failed", queue=queue, traceback=failure.traceback, history=history(past))
        return JobView(
            id_, "failed", failed.task, queue, failed.attempts, failed.node, "it failed: it waits for a person",
            finished_at=failed.at or None, error=failed.error, traceback=failure.traceback, history=history(past),
        )

    async def _token(self, name: str, queue: str, receipt: ReceiptRecord | None) -> Record | None:
        """Find a token: under a node, in its queue, or among the scheduled."""
        keys = self._keys
        gets = [Get(keys.claim(node, name)) for node in list(self._directory.members)[:100]]
        gets.append(Get(keys.awaits(queue, name)))
        if receipt is not None:
            gets.append(Get(keys.job(queue, receipt.priority, receipt.order, name)))
        for answer in (await self._ledger.commit(Txn((), tuple(gets)))).answers if gets else ():
            if answer:
                return answer[0]
        for prefix in (keys.claims, keys.queue_jobs(queue), keys.scheduled, keys.awaiting):
            async for record in scan(self._ledger, prefix, keys_only=True, limit=TOKENS_MAX):
                if record.key.endswith(b"/" + name.encode()):
                    page = await self._ledger.read(record.key)
                    if page.records:
                        return page.records[0]
        return None

    async def _view(self, id_: str, bundle: str, index: int, record: Record) -> JobView:
        keys = self._keys
        if record.key.startswith(keys.claims):
            claim, parsed = claim_in(record.value), keys.parse_claim(record.key)
            if claim is None or parsed is None:
                return JobView(id_, "unknown", why="its claim cannot be read")
            if claim.done_bits >> index & 1:
                return JobView(id_, "finished", claim.task, claim.queue, claim.attempt, parsed[0], "it ended well")
            claim = self._words.heard_token(bundle, claim)
            return held(id_, claim, parsed[0], await self._runs_since(parsed[0], bundle, index))
        token = waiting_at(keys, record)
        if token is None:
            return JobView(id_, "unknown", why="its token cannot be read")
        if token.done_bits >> index & 1:
            return JobView(id_, "finished", token.task, token.queue, token.attempt, why="it has ended")
        token = self._words.heard_token(bundle, token)
        if record.key.startswith(keys.scheduled):
            return scheduled(id_, token, (keys.parse_due(record.key) or (0, "", ""))[0])
        if isinstance(token, Awaiting):
            return awaiting(id_, token, await self._reasons.upstream(bundle, token))
        place, why = await self._reasons.of(record.key, token)
        return waiting(id_, token, place, why)

    async def _runs_since(self, node: str, bundle: str, index: int) -> int | None:
        here = self._here.job(bundle, index)
        if here is not None:
            return here.since_ms
        page = await self._ledger.read(self._keys.running_on(node))
        job = _among(page.records, bundle, index)
        return job.since_ms if job is not None else None

    async def _volatile(self, id_: str, bundle: str, index: int) -> JobView | None:
        """A job of level `none` is nowhere but on its node, which tells of it while it runs."""
        if (here := self._here.job(bundle, index)) is not None:
            return running(id_, here, self._here.node)
        if (ended := self._ended(id_, bundle, index, self._here.results(bundle) or [])) is not None:
            return ended
        async for record in scan(self._ledger, self._keys.running):
            job = _among((record,), bundle, index)
            if job is not None and job.volatile:
                node = record.key[len(self._keys.running):].decode(errors="replace")
                return running(id_, job, node)
        return None


def parsed(job_id: str) -> tuple[str, int]:
    try:
        return parse_job_id(job_id)
    except ValueError as error:
        raise InvalidJob(str(error)) from None


def _among(records: tuple[Record, ...], bundle: str, index: int) -> RunningJob | None:
    for record in records:
        shown = decode(RunningRecord, record.value)
        for job in shown.jobs if shown is not None else ():
            if (job.bundle, job.index) == (bundle, index):
                return job
    return None


# -- views of what lies where ----------------------------------------------------------------------------------------


def held(id_: str, claim: Claim, node: str, since_ms: int | None) -> JobView:
    """A job that a node has. `since_ms`: since when it runs there, if it does."""
    place: Place = "claimed" if since_ms is None else "running"
    why = "its node runs it" if since_ms is not None else "its node has it, and begins it when a slot is free"
    began = since_ms / 1000 if since_ms is not None else None
    now = [AttemptView(claim.attempt, node, began, None, "runs")] if since_ms is not None else []
    return JobView(
        id_, place, claim.task, claim.queue, claim.attempt, node, why, error=claim.error, began_at=began,
        history=history(claim.past) + now,
    )


def running(id_: str, job: RunningJob, node: str) -> JobView:
    """A job of level `none`."""
    if not job.since_ms:
        why = "its node has it, and begins it when a slot is free; it has no persistence: it is nowhere else"
        return JobView(id_, "claimed", job.task, job.queue, job.attempt, node, why)
    began = job.since_ms / 1000
    return JobView(
        id_, "running", job.task, job.queue, job.attempt, node,
        "its node runs it; it has no persistence: it is nowhere else", began_at=began,
        history=[AttemptView(job.attempt, node, began, None, "runs")],
    )


def scheduled(id_: str, token: Token, due_ms: int) -> JobView:
    place: Place = "scheduled" if token.attempt == 1 else "retrying"
    why = "it is due later" if token.attempt == 1 else f"attempt {token.attempt - 1} failed; it is tried again"
    return JobView(
        id_, place, token.task, token.queue, token.attempt, why=why, due=due_ms / 1000, error=token.error,
        history=history(token.past),
    )


def _asleep(view: JobView, steps: list[Step]) -> JobView:
    """A job that is due when a sleep of it is over: it has not failed."""
    for step in steps:
        if step.kind == "sleep" and abs(step.ended_ms / 1000 - (view.due or 0.0)) <= AWAKE_S:
            return replace(view, place="scheduled", why=f"it sleeps until {moment(step.ended_ms)}")
    return view


def awaiting(id_: str, token: Awaiting, why: str) -> JobView:
    return JobView(
        id_, "awaiting", token.task, token.queue, token.attempt, why=why,
        due=token.due / 1000 if token.due else None,
    )


def waits_for(token: Awaiting) -> str:
    """What it was enqueued to wait for; how much of that has ended, is not looked up."""
    first, count = token.upstream[0] if token.upstream else None, 0
    for one in token.upstream:
        count += int(one.jobs or "0", 16).bit_count()
    if first is None or not int(first.jobs or "0", 16):
        return "it waits for other jobs, and its record does not say which"
    job = f"job {job_id(first.bundle, indexes(int(first.jobs, 16))[0])}"
    return f"it waits for {job}" + (f" and {count - 1:,} more" if count > 1 else "")


def waiting(id_: str, token: Token, place: Place, why: str) -> JobView:
    return JobView(
        id_, place, token.task, token.queue, token.attempt, why=why, error=token.error, history=history(token.past),
        due=token.not_before / 1000 if place == "retrying" else None,
    )


def history(past: tuple[Past, ...]) -> list[AttemptView]:
    return [
        AttemptView(
            one.attempt, one.node, one.began_ms / 1000 if one.began_ms else None,
            one.ended_ms / 1000 if one.ended_ms else None, one.how,
        )
        for one in past
    ]


def _with_history(view: JobView, ended: JobView | None) -> JobView:
    """What is kept of a finished job does not have its attempts; its result does, while there is one."""
    return view if ended is None else replace(view, history=ended.history)
