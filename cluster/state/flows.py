"""Flows in the store: how sections come in, and how a flow ends. Pure.

What one block enqueues is a section of a flow. Its tokens lie below `awaiting/` and name it; they go on (wait for
jobs, or begin) when `flow-sections/<flow>/<section>` is there, which comes in the transaction of the section's last
bundle. While it is on its way there is `flows-open/<section>`, on a lease: each bundle but the first needs it. When
that is gone and the section is not there, it never will be. (docs/decisions/0030)
"""

from __future__ import annotations

from msgspec.structs import replace

from rota.client.model import FlowTerms

from ..ledger.commits import Write, created
from ..ledger.ledger import Condition, Delete, Put, Target, prefix_end
from .keys import Keys
from .records import FlowRecord, SectionRecord, encode


def is_there(key: bytes) -> Condition:
    return Condition(key, Target.VERSION, ">", 0)


def opening(keys: Keys, section: str, lease: int) -> Put:
    """Bundles of this section come from here on, until the lease ends."""
    return Put(keys.section_open(section), b"{}", lease)


def among(keys: Keys, write: Write, section: str) -> Write:
    """A bundle of a section that is on its way."""
    return Write((*write.conditions, is_there(keys.section_open(section))), write.ops)


def sealing(
    keys: Keys, write: Write, terms: FlowTerms, flow: bytes, now_s: float, *, was_open: bool
) -> Write:
    """The last bundle of a section (or all of them): with it the section is there. `flow`: the record of the flow that
    it is added to, as it was read; b"": it is the flow's first."""
    at, ops = keys.section(terms.id, terms.section), list(write.ops)
    conditions = [*write.conditions, created(at, 0)]
    if was_open:
        conditions.append(is_there(keys.section_open(terms.section)))
        ops.append(Delete(keys.section_open(terms.section)))
    conditions.append(is_there(keys.flow(terms.id)) if flow else created(keys.flow(terms.id), 0))
    flow = flow or encode(FlowRecord(terms.name, round(now_s, 3), terms.keep_s, terms.jobs))
    ops += [
        Put(keys.flow(terms.id), flow), Put(at, encode(SectionRecord(terms.jobs))),
        Put(keys.graph(terms.id, terms.section), terms.graph),
    ]
    return Write(tuple(conditions), tuple(ops))


def over(
    keys: Keys, who: tuple[Condition, ...], at: Condition, flow: str, record: FlowRecord, jobs: int, badly: int,
    ended_at: float, lease: int,
) -> Write:
    """All of its jobs have ended: it is kept on a lease from here on. What is added to it writes its record anew, so
    that none is overlooked."""
    sections = keys.sections_of(flow)
    ended = replace(record, jobs=jobs, badly=badly, ended_at=ended_at)
    return Write((*who, at), (
        Delete(at.key), Delete(sections, prefix_end(sections)), Put(keys.flow_ended(flow), encode(ended), lease),
    ))
