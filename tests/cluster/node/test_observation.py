"""What a node says of itself to telemetry."""

from __future__ import annotations

from .bench import KEYS
from .whole import Whole, live


def test_before_it_has_joined_there_is_no_lease_to_speak_of() -> None:
    async def deed(whole: Whole) -> None:
        assert whole.node.observed.identity() is None
        figures = whole.node.observed.figures()
        assert (figures.node, figures.is_master, figures.lease_margin_s, figures.lease_ttl_s) == ("", False, None, None)
        assert figures.why_not_ready

    live(deed)


def test_a_member_tells_its_lease_and_what_it_has_room_for() -> None:
    async def deed(whole: Whole) -> None:
        await whole.ready()
        await whole.enqueue(count=2)
        identity, figures = whole.node.observed.identity(), whole.node.observed.figures()
        record = await whole.bench.record(KEYS.node(whole.node.service.node))
        assert identity is not None
        assert (identity[0].key, identity[1]) == (record.key, record.lease)
        assert figures.is_master and figures.why_not_ready is None and figures.taken == 2
        assert figures.capacity == {"async": 10, "sync": 2} and figures.lease_ttl_s == 8.0
        assert figures.lease_margin_s is not None and 0.0 < figures.lease_margin_s <= 8.0

    live(deed, lease_ttl_s=8)
