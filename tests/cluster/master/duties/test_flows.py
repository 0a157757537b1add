"""Flows, whatever somebody has done to their records."""

from __future__ import annotations

import random

from rota.client.calls.graphs import FlowPart, pack
from rota.client.model import Upstream
from rota.cluster.ledger.buckets import Buckets
from rota.cluster.ledger.ledger import Condition, Target
from rota.cluster.master.duties.dependants import Dependants
from rota.cluster.master.duties.ends import Ends
from rota.cluster.state.keys import Keys
from rota.cluster.state.quarantine import SetAside
from rota.cluster.state.records import Awaiting, FlowRecord, SectionRecord, encode
from tests.cluster.node.bench import BUNDLE, KEYS, OTHER, Bench, body, play

FLOW = "0s8sf4s75de1-00000001"
GRAPH = pack([FlowPart(BUNDLE, "m:f", "q", 2), FlowPart(OTHER, "m:f", "q", 2, ((BUNDLE, "3"),))])


async def master(bench: Bench) -> Dependants:
    """One that begins now, and has done what there is to do."""
    term = bench.term(Condition(b"no fence", Target.VERSION, "==", 0))
    buckets = Buckets(bench.ledger, bench.clock, random.Random(1))
    aside = SetAside(bench.ledger, KEYS, bench.clock, term.seal, buckets)
    made = Dependants(term, aside, buckets, Ends(bench.ledger, KEYS, bench.commits, lambda queue: False))
    await made._load()
    await made.settle()
    return made


async def flow(bench: Bench, keys: Keys = KEYS) -> None:
    """Its first job has not ended; the second waits for it."""
    waits = Awaiting(
        "m:f", "q", 0, 7, 2, "async", 0, upstream=(Upstream(BUNDLE, "3", own=True),), flow=FLOW, section=FLOW
    )
    await bench.put(
        (keys.flow(FLOW), encode(FlowRecord("import", 1.0, jobs=4))),
        (keys.section(FLOW, FLOW), encode(SectionRecord(4))), (keys.graph(FLOW, FLOW), GRAPH),
        (keys.body(BUNDLE), body()), (keys.body(OTHER), body(OTHER)), (keys.awaits("q", OTHER), encode(waits)),
    )


def test_a_flow_whose_graph_cannot_be_read_is_not_over() -> None:
    """It was: and with its section gone, jobs that had been acknowledged were given up, arguments and all."""
    async def deed(bench: Bench) -> None:
        await flow(bench)
        for graph in (b"", GRAPH[:-4]):
            await bench.put((KEYS.graph(FLOW, FLOW), graph))
            await master(bench)
        await bench.delete(KEYS.graph(FLOW, FLOW))
        await master(bench)
        assert await bench.names(KEYS.flows) == [FLOW] and not await bench.names(KEYS.flows_ended)
        await bench.put((KEYS.graph(FLOW, FLOW), GRAPH))        # and with it, it is as before
        await bench.delete(KEYS.body(BUNDLE))
        await master(bench)
        assert await bench.names(KEYS.jobs + b"q/") and not await bench.names(KEYS.awaiting)

    play(deed)


def test_jobs_of_a_section_that_was_there_are_not_given_up() -> None:
    async def deed(bench: Bench) -> None:
        await flow(bench)
        await bench.delete(KEYS.section(FLOW, FLOW))
        await master(bench)
        assert await bench.names(KEYS.awaiting) == [f"q/{OTHER}"] and len(await bench.names(KEYS.bodies)) == 2
        await bench.delete(KEYS.body(BUNDLE))       # the first job ends
        await master(bench)
        assert await bench.names(KEYS.jobs + b"q/") and not await bench.names(KEYS.awaiting)

    play(deed)


def test_a_section_that_never_came_is_given_up() -> None:
    async def deed(bench: Bench) -> None:
        await flow(bench)
        await bench.delete(KEYS.section(FLOW, FLOW), KEYS.graph(FLOW, FLOW), KEYS.flow(FLOW))
        await master(bench)
        assert not await bench.names(KEYS.awaiting)

    play(deed)
