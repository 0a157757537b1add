"""Sections of flows on their way in."""

from __future__ import annotations

import pytest

from rota.client.errors import InvalidJob
from rota.client.model import Enqueue, FlowTerms, Terms
from rota.cluster.node.intake.sections import Sections, check, gone
from rota.cluster.state import moves

from ..bench import BUNDLE, KEYS, OTHER, Bench, body, play, token

FLOW = "0s8sf4s75de1-00000009"
WHOLE = FlowTerms(FLOW, FLOW, "whole", name="import")


def write(bench: Bench, bundle: str) -> moves.Write:
    return moves.enqueue(KEYS, (bench.context.member,), bundle, token(2), body(bundle), "", 0)


@pytest.mark.parametrize(("terms", "bundle", "words"), [
    (FlowTerms("no id", FLOW, "more"), {}, "valid id of a flow"),
    (FlowTerms(FLOW, FLOW, "last"), {}, "without its graph"),
    (FlowTerms(FLOW, FLOW, "whole", graph=b"nonsense", name="import"), {}, "graph of flow"),
    (FlowTerms(FLOW, FLOW, "whole", graph=b"x", name="a b"), {}, "valid name of a flow"),
    (FlowTerms(FLOW, FLOW, "more"), {"level": "delayed"}, "durably"),
    (FlowTerms(FLOW, FLOW, "more"), {"terms": Terms(unique="k")}, "durably"),
])
def test_what_cannot_be_a_part_says_why(terms: FlowTerms, bundle: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidJob, match=words):
        check(Enqueue(BUNDLE, "m:f", "q", 2, "async", b"", **bundle), terms)  # type: ignore[arg-type]


def test_if_one_bundle_of_a_whole_section_is_refused_none_is_stored() -> None:
    async def deed(bench: Bench) -> None:
        sections = Sections(bench.context, bench.commits)
        stored = [await sections.submit(write(bench, bundle), WHOLE) for bundle in (BUNDLE, OTHER)]
        await sections.finish({FLOW: gone(FLOW)})
        assert [type(future.exception()) for future in stored] == [InvalidJob, InvalidJob]
        assert await bench.names(KEYS.jobs) == []

    play(deed)


def test_a_section_without_its_end_is_none() -> None:
    async def deed(bench: Bench) -> None:
        sections = Sections(bench.context, bench.commits)
        stored = await sections.submit(write(bench, BUNDLE), WHOLE)
        await sections.finish({})
        assert "without its end" in str(stored.exception()) and await bench.names(KEYS.jobs) == []

    play(deed)


def test_nothing_is_added_to_a_flow_that_is_over() -> None:
    async def deed(bench: Bench) -> None:
        with pytest.raises(InvalidJob, match="is over"):
            await Sections(bench.context, bench.commits).submit(write(bench, BUNDLE), FlowTerms(FLOW, OTHER, "last"))

    play(deed)
