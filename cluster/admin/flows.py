"""Flows, as people meet them: lists of them, and where every job of one is. Read from the store when somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from rota.client.calls.graphs import FlowPart, last_of, unpack
from rota.client.calls.graphs import each as each_of
from rota.client.errors import FlowUnknown
from rota.client.ids import job_id
from rota.client.wire.views import (
    FLOW_JOB_STATES,
    FlowJobState,
    FlowPartView,
    FlowResults,
    FlowsPage,
    FlowState,
    FlowView,
)

from ..ledger.ledger import OPS_MAX, Get, Ledger, Record, Txn, prefix_end
from ..ledger.scan import scan
from ..state.keys import Keys, whole
from ..state.records import FlowRecord, RunningRecord, bits, claim_in, decode
from ..state.splitting import jobs_in
from ..state.upstream import got

LISTED_MAX = 10_000
"""Flows that a list is made of."""

CLAIMS_MAX = 20_000
GRAPHS_PER_PAGE = 50
RESULTS_PER_PAGE = 200
RESULT_BYTES = 4 * 1024 * 1024
FAILED_NAMED = 10
LOOK_S_MIN, LOOK_S_MAX = 0.02, 0.5

Held: TypeAlias = tuple[dict[str, int], dict[str, int]]
"""What nodes have, and what of it runs: bitmaps by bundle."""


class Known:
    """What lies in the store of one flow: its record, its graph, and what of its jobs has ended."""

    def __init__(
        self, flow: str, record: FlowRecord, parts: list[FlowPart], well: dict[str, int], badly: dict[str, int]
    ) -> None:
        self.flow, self.record, self.parts, self.well, self.badly = flow, record, parts, well, badly

    @property
    def is_over(self) -> bool:
        return self.record.ended_at > 0

    def left(self, part: FlowPart) -> int:
        """Its jobs that are not known to have ended well."""
        return part.all & ~self.well.get(part.bundle, 0)


class FlowStatus:
    def __init__(self, ledger: Ledger, keys: Keys) -> None:
        self._ledger = ledger
        self._keys = keys

    async def page(self, name: str, limit: int, after: str) -> FlowsPage:
        """Flows without their jobs, the newest first: those that are not over, and those that are kept."""
        found: list[tuple[str, FlowRecord]] = []
        for prefix in (self._keys.flows, self._keys.flows_ended):
            async for record in scan(self._ledger, prefix, limit=LISTED_MAX):
                flow, read = self._keys.parse_flow(record.key), decode(FlowRecord, record.value)
                if flow is not None and read is not None and name in ("", read.name):
                    found.append((flow, read))
        found.sort(key=lambda one: (-one[1].at, one[0]))
        names = [flow for flow, _ in found]
        start = names.index(after) + 1 if after in names else 0
        part = found[start : start + limit]
        held = None if all(record.ended_at for _, record in part) else await self._held()      # once for all of them
        views = [
            self._over(flow, record) if record.ended_at else await self.summary(flow, held) or self._bare(flow, record)
            for flow, record in part
        ]
        return FlowsPage(views, part[-1][0] if start + limit < len(found) else "")

    async def summary(self, flow: str, held: Held | None = None) -> FlowView | None:
        """A flow without its parts."""
        try:
            view, _ = await self._view(flow, held)
        except FlowUnknown:
            return None
        return FlowView(
            view.id, view.name, view.state, view.jobs, view.started_at, view.ended_at, view.counts, last=[],
            failed=view.failed,
        )

    @staticmethod
    def _bare(flow: str, record: FlowRecord) -> FlowView:
        """One of which only the record can be read."""
        return FlowView(flow, record.name, "running", record.jobs, record.at, None, {})

    @staticmethod
    def _over(flow: str, record: FlowRecord) -> FlowView:
        counts = {"ok": record.jobs - record.badly, "cancelled": record.badly}
        return FlowView(
            flow, record.name, "failed" if record.badly else "done", record.jobs, record.at, record.ended_at,
            {state: count for state, count in counts.items() if count},
        )

    async def view(self, flow: str, *, parts: bool = True, last: bool = True, wait_s: float = 0.0) -> FlowView:
        """One flow, when it is over or can go on no more, or after so many seconds. Raises `FlowUnknown`."""
        loop = asyncio.get_running_loop()
        until, pause_s = loop.time() + wait_s, LOOK_S_MIN
        while True:
            view, known = await self._view(flow)
            left_s = until - loop.time()
            if view.state != "running" or left_s <= 0:
                break
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, LOOK_S_MAX)
        return FlowView(
            view.id, view.name, view.state, view.jobs, view.started_at, view.ended_at, view.counts,
            view.parts if parts else [],
            [job_id(*ref) for ref in each_of(last_of(known.parts))] if last else [], view.failed,
        )

    async def known(self, flow: str) -> Known:
        """Raises `FlowUnknown`."""
        keys = self._keys
        now, ended = (await self._ledger.commit(Txn((), (Get(keys.flow(flow)), Get(keys.flow_ended(flow)))))).answers
        record = decode(FlowRecord, (now or ended)[0].value) if now or ended else None
        if record is None:
            raise FlowUnknown(f"there is no flow {flow}: it never was, or it ended longer ago than it was to be kept")
        sections = [stored async for stored in scan(self._ledger, keys.graphs_of(flow), size=GRAPHS_PER_PAGE)]
        parts: list[FlowPart] = []
        for stored in sorted(sections, key=lambda section: section.create_revision):   # what waits, behind the rest
            section = unpack(stored.value)
            if section is None:
                raise FlowUnknown(f"the graph of flow {flow} cannot be read (`rota doctor` names it): its jobs go on")
            parts += section
        well, badly = await got(self._ledger, keys, flow)
        return Known(flow, record, parts, well, badly)

    async def results(self, flow: str, after: str) -> FlowResults:
        """What is kept of the results of its last jobs, signed."""
        known = await self.known(flow)
        last, prefix = last_of(known.parts), self._keys.inputs_of(flow)
        found: list[tuple[str, bytes]] = []
        size, at = 0, prefix + after.encode() if after else b""
        async for record in scan(self._ledger, prefix, after=at, size=RESULTS_PER_PAGE):
            parsed = self._keys.parse_input(record.key)
            if parsed is None or not parsed[3] or not parsed[2] & last.get(parsed[1], 0):
                continue
            found.append((parsed[1], record.value))
            size += len(record.value)
            if size > RESULT_BYTES or len(found) >= RESULTS_PER_PAGE:
                return FlowResults(found, record.key[len(prefix):].decode())
        return FlowResults(found)

    # -- where its jobs are ------------------------------------------------------------------------------------------

    async def _view(self, flow: str, held: Held | None = None) -> tuple[FlowView, Known]:
        known = await self.known(flow)
        states = await self.states(known, held)
        counts: dict[str, int] = dict.fromkeys(FLOW_JOB_STATES, 0)
        failed: list[str] = []
        for part, now in zip(known.parts, states, strict=True):
            for index, state in enumerate(now):
                counts[state] += 1
                if state == "failed" and len(failed) < FAILED_NAMED:
                    failed.append(job_id(part.bundle, index))
        places = {part.bundle: place for place, part in enumerate(known.parts)}
        view = FlowView(
            flow, known.record.name, _state(known, states), sum(counts.values()), known.record.at,
            known.record.ended_at or None, {state: count for state, count in counts.items() if count},
            [
                FlowPartView(
                    part.task, part.queue, part.ids, now,
                    [places[bundle] for bundle, _ in part.after if bundle in places], part.on_upstream,
                )
                for part, now in zip(known.parts, states, strict=True)
            ],
            failed=failed,
        )
        return view, known

    async def states(self, known: Known, held: Held | None = None) -> list[list[FlowJobState]]:
        """Of every job, by part. `held`: what nodes have, if that was read already."""
        left = [part for part in known.parts if known.left(part)]
        awaiting, failed = await self._places(left)
        claimed, running = (held or await self._held()) if left and not known.is_over else ({}, {})
        found: list[list[FlowJobState]] = []
        for part in known.parts:
            well, badly = known.well.get(part.bundle, 0), known.badly.get(part.bundle, 0)
            bundle, states = part.bundle, list[FlowJobState]()
            for index in range(part.count):
                bit = 1 << index
                if well & bit:
                    states.append("ok")
                elif failed.get(bundle, 0) & bit:
                    states.append("failed")
                elif badly & bit or known.is_over:
                    states.append("cancelled")
                elif running.get(bundle, 0) & bit:
                    states.append("running")
                elif claimed.get(bundle, 0) & bit:
                    states.append("claimed")
                else:
                    states.append("awaiting" if bundle in awaiting else "waiting")
            found.append(states)
        return found

    async def _places(self, parts: Sequence[FlowPart]) -> tuple[set[str], dict[str, int]]:
        """Which of these wait for others, and which jobs of them are in the failed set."""
        keys, awaiting, failed = self._keys, set[str](), dict[str, int]()
        step = OPS_MAX // 2
        for start in range(0, len(parts), step):
            some = parts[start : start + step]
            answers = (await self._ledger.commit(Txn((), tuple(get for part in some for get in (
                Get(keys.awaits(part.queue, part.bundle), b"", True),
                Get(keys.failures_of(part.bundle), prefix_end(keys.failures_of(part.bundle)), True),
            ))))).answers
            for at, part in enumerate(some):
                if answers[2 * at]:
                    awaiting.add(part.bundle)
                failed[part.bundle] = _bits_of(answers[2 * at + 1])
        return awaiting, failed

    async def _held(self) -> Held:
        claimed: dict[str, int] = {}
        running: dict[str, int] = {}
        async for record in scan(self._ledger, self._keys.claims, limit=CLAIMS_MAX):
            parsed, claim = self._keys.parse_claim(record.key), claim_in(record.value)
            if parsed is None or claim is None:
                continue
            bundle = whole(parsed[1])
            claimed[bundle] = claimed.get(bundle, 0) | bits(jobs_in(parsed[1], claim) or ())
        async for record in scan(self._ledger, self._keys.running):
            shown = decode(RunningRecord, record.value)
            for job in shown.jobs if shown is not None else ():
                running[whole(job.bundle)] = running.get(whole(job.bundle), 0) | 1 << job.index
        return claimed, running


def _bits_of(records: Iterable[Record]) -> int:
    found = 0
    for record in records:
        text = record.key.rpartition(b"-")[2]
        if text.isdigit() and len(text) <= 2:
            found |= 1 << int(text)
    return found


def _state(known: Known, states: list[list[FlowJobState]]) -> FlowState:
    """Stuck: some have failed, and the rest waits for them, or for such as do. What is cancelled with what
    it waits for, or runs whatever becomes of that, waits only for what waits itself: the master soon lets it go on."""
    if known.is_over:
        return "failed" if known.record.badly else "done"
    failed: dict[str, int] = {}
    blocked: dict[str, int] = {}

    def any_of(part: FlowPart, jobs_of: Mapping[str, int]) -> bool:
        return any(jobs_of.get(bundle, 0) & int(jobs or "0", 16) for bundle, jobs in part.after)

    for part, now in zip(known.parts, states, strict=True):
        blocks = part.on_upstream == "block" and (any_of(part, failed) or any_of(part, known.badly))
        blocks = blocks or any_of(part, blocked)
        for index, state in enumerate(now):
            if state == "failed":
                failed[part.bundle] = failed.get(part.bundle, 0) | 1 << index
            elif state == "awaiting" and blocks:
                blocked[part.bundle] = blocked.get(part.bundle, 0) | 1 << index
            elif state not in ("ok", "cancelled"):
                return "running"
    return "stuck" if failed or blocked else "running"

