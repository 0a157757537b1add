"""Sections of flows on their way in: what a small one needs comes in one transaction, a large one in several, of which
the last makes all of it begin (`..state.flows`)."""

from __future__ import annotations

import asyncio

from rota.client.calls.graphs import GRAPH_BYTES_MAX, SECTIONS_MAX, unpack
from rota.client.errors import EnqueueError, InvalidJob
from rota.client.ids import BUNDLE, is_name
from rota.client.model import Enqueue, FlowTerms

from ...context import IdentityContext
from ...ledger.commits import Commits, Verdict, Write, merged
from ...ledger.ledger import OPS_MAX, prefix_end
from ...state import flows

OPEN_S = 600.0
"""How long a section may take to be stored as a whole."""


def check(bundle: Enqueue, terms: FlowTerms) -> None:
    """Raises `InvalidJob`."""
    for name in (terms.id, terms.section):
        if not BUNDLE.match(name) or "." in name:
            raise InvalidJob(f"{name!r:.80} is not a valid id of a flow")
    is_new = terms.id == terms.section
    if terms.graph:
        if is_new and not is_name(terms.name):
            raise InvalidJob(f"{terms.name!r:.80} is not a valid name of a flow")
        if len(terms.graph) > GRAPH_BYTES_MAX or unpack(terms.graph) is None:
            raise InvalidJob(f"the graph of flow {terms.id} cannot be read, or is too large")
    elif terms.part == "last":
        raise InvalidJob(f"the last part of flow {terms.id} came without its graph")
    if bundle.level != "durable" or (bundle.terms is not None and (bundle.terms.unique or bundle.terms.remember_s)):
        raise InvalidJob("a job of a flow is stored durably with the others, without keys of its own")


class Sections:
    """Those of one request."""

    def __init__(self, context: IdentityContext, commits: Commits) -> None:
        self._context = context
        self._commits = commits
        self._whole: dict[str, list[tuple[Write, asyncio.Future[Verdict]]]] = {}
        self._sealed: dict[str, FlowTerms] = {}

    async def submit(self, write: Write, terms: FlowTerms) -> asyncio.Future[Verdict]:
        """Store a bundle of a section. Of a whole one: when `finish` is called."""
        keys = self._context.keys
        if terms.part == "whole":
            future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
            self._whole.setdefault(terms.section, []).append((write, future))
            if terms.graph:
                self._sealed[terms.section] = terms
            return future
        if terms.part == "first":
            lease = await self._context.buckets.of(OPEN_S).lease()
            opened = flows.opening(keys, terms.section, lease)
            return self._commits.submit(Write(write.conditions, (*write.ops, opened)))
        if terms.part == "more":
            return self._commits.submit(flows.among(keys, write, terms.section))
        flow, now_s = await self._flow(terms), self._context.clock.wall()
        return self._commits.submit(flows.sealing(keys, write, terms, flow, now_s, was_open=True))

    async def finish(self, refused: dict[str, EnqueueError]) -> None:
        """Store those that came as a whole. `refused`: of which a bundle was; then nothing of it is stored."""
        for section, writes in self._whole.items():
            try:
                if (why := refused.get(section)) is not None:
                    raise why
                future = self._commits.submit(await self._merged(section, [write for write, _ in writes]))
                verdict = await asyncio.shield(future)
            except Exception as error:
                for _, stored in writes:
                    stored.set_exception(error)
                    stored.exception()
            else:
                for _, stored in writes:
                    stored.set_result(verdict)

    async def _merged(self, section: str, writes: list[Write]) -> Write:
        terms = self._sealed.get(section)
        if terms is None:
            raise InvalidJob(f"section {section} of a flow came without its end")
        whole = flows.sealing(
            self._context.keys, merged(writes), terms, await self._flow(terms), self._context.clock.wall(),
            was_open=False,
        )
        if len(whole.ops) > OPS_MAX or len(whole.conditions) > OPS_MAX:
            raise InvalidJob(f"section {section} of a flow is too large for one transaction")
        return whole

    async def _flow(self, terms: FlowTerms) -> bytes:
        """The flow's record: of a new one, made here. Raises `InvalidJob` if it is over, or has too many sections."""
        keys, ledger = self._context.keys, self._context.ledger
        if terms.id == terms.section:
            return b""
        sections = keys.sections_of(terms.id)
        page = await ledger.read(keys.flow(terms.id))
        if not page.records:
            raise gone(terms.id)
        known = await ledger.read(sections, prefix_end(sections), limit=SECTIONS_MAX, keys_only=True)
        if len(known.records) >= SECTIONS_MAX:
            raise InvalidJob(f"flow {terms.id} has been added to {SECTIONS_MAX:,} times: that is the limit")
        return page.records[0].value


def gone(flow: str) -> InvalidJob:
    return InvalidJob(f"flow {flow} is over, or was never there: nothing can be added to it")

