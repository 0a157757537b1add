"""What was kept for jobs, and for flows, that are not there any more goes."""

from __future__ import annotations

import asyncio

from ...context import TermContext
from ...ledger.commits import Write
from ...ledger.ledger import OPS_MAX, Condition, Delete, Get, Target, Txn, prefix_end
from ...ledger.scan import pages
from ...state import moves
from .awaited import Awaited

PER_TXN = OPS_MAX // 4


async def sweep(context: TermContext, awaited: Awaited) -> None:
    """What jobs were given that have ended since; results and graphs of flows whose time is over."""
    keys, given = context.keys, dict[str, None]()
    for area in (keys.inputs, keys.graphs):
        async for page in pages(context.ledger, area, keys_only=True):
            for record in page.records:
                given[record.key[len(area):].partition(b"/")[0].decode(errors="replace")] = None
    waiting = {one.bundle for one in awaited.waiting.values()}
    names = [name for name in given if name and name not in waiting]
    for start in range(0, len(names), PER_TXN):
        part = names[start : start + PER_TXN]
        gone = await _gone(context, part)
        await asyncio.gather(*(
            context.commits.submit(Write((context.fence,), (
                moves.forgotten(keys, name), Delete(keys.graphs_of(name), prefix_end(keys.graphs_of(name)))
            ))) for name in gone
        ))


async def sweep_steps(context: TermContext) -> None:
    """What jobs remembered of which nothing else is left: where a wide bundle ended, not all of it may have gone with
    it (`FORGOTTEN_MAX`)."""
    keys = context.keys
    async for page in pages(context.ledger, keys.steps, keys_only=True):
        left: dict[str, set[int]] = {}
        for record in page.records:
            if (parsed := keys.parse_step(record.key)) is not None:
                left.setdefault(parsed[0], set()).add(parsed[1])
        names = list(left)
        for start in range(0, len(names), PER_TXN):
            gone = await _gone(context, names[start : start + PER_TXN])
            await asyncio.gather(*(_forget(context, name, left[name]) for name in gone))


async def _forget(context: TermContext, bundle: str, indexes: set[int]) -> None:
    keys = context.keys
    body, failures = keys.body(bundle), keys.failures_of(bundle)
    areas = ((body, body + b"/"), (failures, prefix_end(failures)))
    nothing = tuple(Condition(start, Target.CREATE, "==", 0, end) for start, end in areas)
    ops = moves.forget_steps(keys, bundle, sorted(indexes))
    await context.commits.submit(Write((context.fence, *nothing), ops))


async def _gone(context: TermContext, names: list[str]) -> list[str]:
    """Those of which there is neither a job nor a flow."""
    keys = context.keys
    answers = (await context.ledger.commit(Txn((), tuple(
        get for name in names for get in (
            Get(keys.body(name), keys.body(name) + b"/", True, 1),
            Get(keys.failures_of(name), prefix_end(keys.failures_of(name)), True, 1),
            Get(keys.flow(name), b"", True), Get(keys.flow_ended(name), b"", True),
        )
    )))).answers
    return [name for at, name in enumerate(names) if not any(answers[4 * at : 4 * at + 4])]
