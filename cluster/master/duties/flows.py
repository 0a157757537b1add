"""Flows, as a master keeps them: which sections are there, and what waits for one that is on its way; and the flow
itself, which waits for all of its jobs, and is over when all of them have ended (docs/decisions/0030)."""

from __future__ import annotations

import asyncio
import logging

from rota.client.calls.graphs import jobs_of, last_of, unpack

from ...context import TermContext
from ...ledger.buckets import Buckets
from ...ledger.commits import Write
from ...ledger.ledger import Event, Get, Txn
from ...ledger.scan import pages, scan
from ...state import flows, moves
from ...state.keys import Keys
from ...state.records import FlowRecord, decode
from ...state.upstream import Became, got, sorted_out
from .awaited import Awaited, Waiting
from .inputs import Inputs

log = logging.getLogger(__name__)

GRAPHS_PER_PAGE = 50
AT_ONCE = 256


class Sections:
    """Which are there, and the tokens (their keys) that wait for those that are not. In memory."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._there: dict[str, str] = {}            # section -> flow
        self._of: dict[str, set[str]] = {}          # flow -> sections
        self._held: dict[str, set[bytes]] = {}
        self.doubtful: dict[str, None] = {}         # that may never come
        self.to_load: dict[str, None] = {}          # flows that are new, or were added to
        self.over: list[str] = []

    def is_there(self, section: str) -> bool:
        return section in self._there

    def hold(self, section: str, key: bytes) -> None:
        self._held.setdefault(section, set()).add(key)

    def let_go(self, section: str, key: bytes) -> None:
        held = self._held.get(section)
        if held is not None:
            held.discard(key)
            if not held:
                del self._held[section]

    def held(self, section: str) -> set[bytes]:
        return self._held.get(section, set())

    def doubt_all(self) -> None:
        """What is waited for, and is not there: a new master looks whether it is on its way."""
        self.doubtful.update(dict.fromkeys(self._held))

    def see(self, event: Event) -> set[bytes]:
        """A key of flows has changed. Returns the tokens that may go on."""
        key, keys = event.record.key, self._keys
        if key.startswith(keys.flow_sections):
            return self._see_section(event)
        if key.startswith(keys.flows_open):
            section = keys.parse_open(key)
            if event.deleted and section is not None and section in self._held:
                self.doubtful[section] = None
        elif key.startswith(keys.flows) and (flow := keys.parse_flow(key)) is not None:
            if event.deleted:
                self._forget(flow)
            else:
                self.to_load[flow] = None
        return set()

    def _see_section(self, event: Event) -> set[bytes]:
        parsed = self._keys.parse_section(event.record.key)
        return self.came(*parsed) if parsed is not None and not event.deleted else set()

    def count_of(self, flow: str) -> int:
        """How many of its sections are there."""
        return len(self._of.get(flow, ()))

    def came(self, flow: str, section: str) -> set[bytes]:
        """It is there. Returns the tokens that may go on."""
        self._there[section] = flow
        self._of.setdefault(flow, set()).add(section)
        self.to_load[flow] = None
        self.doubtful.pop(section, None)
        return self._held.pop(section, set())

    def _forget(self, flow: str) -> None:
        self.to_load.pop(flow, None)
        for section in self._of.pop(flow, ()):
            self._there.pop(section, None)
        self.over.append(flow)


class Flows:
    """One term's."""

    def __init__(self, context: TermContext, buckets: Buckets, awaited: Awaited, inputs: Inputs) -> None:
        self._ledger = context.ledger
        self._keys = context.keys
        self._clock = context.clock
        self._commits = context.commits
        self._fence = context.fence
        self._buckets = buckets
        self._awaited = awaited
        self._inputs = inputs
        self.sections = Sections(context.keys)

    async def read_all(self) -> set[bytes]:
        """Before tokens are: which sections are there, and which flows are not over. Returns the tokens that may go on:
        those that the watch has shown by now."""
        begun: set[bytes] = set()
        for prefix in (self._keys.flow_sections, self._keys.flows):
            async for page in pages(self._ledger, prefix, keys_only=True):
                for record in page.records:
                    begun |= self.sections.see(Event(False, record))
        return begun

    @property
    def has_work(self) -> bool:
        sections = self.sections
        return bool(sections.to_load or sections.doubtful or sections.over)

    async def settle(self) -> set[bytes]:
        """What has come in, what never will, what is over. Returns the tokens that may go on."""
        sections = self.sections
        begun: set[bytes] = set()
        over, sections.over = sections.over, []
        for flow in over:
            self._awaited.forget(self._keys.flow(flow))
        while sections.doubtful:
            section = next(iter(sections.doubtful))
            del sections.doubtful[section]
            begun |= await self._abandon(section)
        while sections.to_load:
            flow = next(iter(sections.to_load))
            del sections.to_load[flow]
            await self._load(flow)
        return begun

    async def _abandon(self, section: str) -> set[bytes]:
        """Its client has gone while it stored it: what is there of it was never enqueued, if it can come no more. (With
        a graph it was there, whatever has become of its key: its jobs go on.)"""
        held = sorted(self.sections.held(section))
        waiting = [one for key in held if (one := self._awaited.waiting.get(key)) is not None]
        flow = next((one.token.flow for one in waiting if one.token is not None), "")
        opened, graph = (await self._ledger.commit(Txn((), (
            Get(self._keys.section_open(section), b"", True), Get(self._keys.graph(flow, section), b"", True),
        )))).answers
        if opened or self.sections.is_there(section):
            return set()
        if graph:
            return self.sections.came(flow, section)
        for start in range(0, len(waiting), AT_ONCE):
            await asyncio.gather(*(self._commits.submit(self._gone(one)) for one in waiting[start : start + AT_ONCE]))
        return set()

    def _gone(self, waiting: Waiting) -> Write:
        token = waiting.token
        assert token is not None
        return moves.abandon(self._keys, (self._fence,), waiting.at, waiting.bundle, token.flow, token.section)

    async def _load(self, flow: str) -> None:
        """The record first: what is added behind it writes it anew."""
        key = self._keys.flow(flow)
        found = (await self._ledger.commit(Txn((), (Get(key),)))).answers[0]
        record = decode(FlowRecord, found[0].value) if found else None
        if record is None:
            self._awaited.forget(key)
            return
        parts, graphs = [], 0
        async for stored in scan(self._ledger, self._keys.graphs_of(flow), size=GRAPHS_PER_PAGE):
            section = unpack(stored.value)
            graphs += section is not None
            parts += section or []
        if graphs < max(1, self.sections.count_of(flow)):
            log.error("flow %s has a graph that cannot be read: its jobs go on, but it is never said to be over", flow)
            self._awaited.forget(key)
            return
        has, not_well = await got(self._ledger, self._keys, flow)
        left, count = {}, 0
        for bundle, jobs in jobs_of(parts).items():
            count += jobs.bit_count()
            if jobs := jobs & ~has.get(bundle, 0):
                left[bundle] = jobs
        self._awaited.forget(key)
        waiting = Waiting(
            key, flow, found[0].mod_revision, None, left, last_of(parts), dict(not_well), record, count
        )
        self._awaited.put(waiting)
        self._awaited.begin(waiting)

    async def note(self, waiting: Waiting, upstream: str, became: Became) -> bool:
        """What has become of some of its jobs. What is in the failed set has not ended: a person may retry it. False:
        the flow is not any more what it was seen as."""
        left, not_well = waiting.left.get(upstream, 0), waiting.badly.get(upstream, 0)
        good, bad = sorted_out(became, left, 0, not_well)
        ended = 0
        for entry in bad:
            if not became.failed >> entry.index & 1:
                ended |= 1 << entry.index
        badly = not_well & ~left
        for entry in bad:
            badly |= 1 << entry.index
        if not await self._inputs.tell_badly(waiting, upstream, badly):
            return False
        for jobs, put in self._inputs.parts(waiting, upstream, good):
            if not await self._inputs.let_in(waiting, put):
                return False
            ended |= jobs
        if ended:
            self._awaited.has_got(waiting, upstream, ended)
        return True

    async def over(self, waiting: Waiting) -> Write:
        """All of its jobs have ended."""
        assert waiting.flow is not None
        badly = sum(jobs.bit_count() for jobs in waiting.badly.values())
        lease = await self._buckets.of(waiting.flow.keep_s).lease()
        return flows.over(
            self._keys, (self._fence,), waiting.at, waiting.bundle, waiting.flow, waiting.jobs, badly,
            round(self._clock.wall(), 3), lease,
        )
