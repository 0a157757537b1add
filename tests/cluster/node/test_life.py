"""How one identity leaves."""

from __future__ import annotations

import pytest

from rota.cluster.events.records import BundlesHandedBack, NodeLeaving, NodeLeft

from .bench import BUNDLE, KEYS, OTHER, a_moment
from .whole import Whole, live


def test_it_hands_over_what_has_not_begun_and_waits_for_what_has() -> None:
    async def deed(whole: Whole) -> None:
        whole.listen(NodeLeaving, NodeLeft)
        await whole.ready()
        whole.runners.at_once = {BUNDLE}
        await whole.enqueue(BUNDLE, 1)
        await whole.enqueue(OTHER, 1)
        await whole.until(lambda: {work.bundle for work in whole.runners.given} == {BUNDLE, OTHER})
        whole.node.drain()
        await a_moment(5.0)
        assert not whole.running.done() and not whole.node.standing.is_master
        assert [name.rpartition("/")[2] for name in await whole.bench.names(KEYS.jobs)] == [OTHER]
        assert [name.rpartition("/")[2] for name in await whole.bench.names(KEYS.claims)] == [BUNDLE]
        (begun,) = (work for work in whole.runners.given if work.bundle == BUNDLE)
        whole.end(begun, 0)
        await whole.running
        assert await whole.bench.names(KEYS.claims) == []
        assert [type(event) for event in whole.events] == [NodeLeaving, NodeLeft]

    live(deed, grace_s=30.0)


@pytest.mark.parametrize("hurries", [True, False])
def test_in_a_hurry_or_when_its_grace_is_over_it_hands_back_what_runs(hurries: bool) -> None:
    async def deed(whole: Whole) -> None:
        whole.listen(BundlesHandedBack)
        await whole.ready()
        whole.runners.at_once = {BUNDLE}
        await whole.enqueue(BUNDLE, 1)
        await whole.until(lambda: whole.runners.given)
        began = whole.bench.clock.monotonic()
        whole.node.drain()
        if hurries:
            await a_moment(1.0)
            whole.node.drain()
        await whole.running
        took_s = whole.bench.clock.monotonic() - began
        assert took_s < 5.0 if hurries else 30.0 <= took_s < 35.0
        assert whole.runners.killed == 1 and [event.why for event in whole.events] == ["drain"]
        assert len(await whole.bench.names(KEYS.jobs)) == 1 and await whole.bench.names(KEYS.claims) == []

    live(deed, grace_s=30.0)
