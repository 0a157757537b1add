"""Whose turn it is at an outbox, whatever lies there."""

from __future__ import annotations

import random

import pytest

from rota.client.wire.views import TurnAsked
from rota.cluster.admin.outboxes import Outboxes
from rota.cluster.state.outboxes import OutboxRecord
from rota.cluster.state.records import encode
from tests.cluster.node.bench import KEYS, Bench, play


@pytest.mark.parametrize("there", [encode(OutboxRecord("phantom", 1_000)), b"{"])
def test_what_would_never_end_is_nobodys_turn(there: bytes) -> None:
    """Written by hand, on no lease: the rows of that outbox would wait for ever."""
    async def deed(bench: Bench) -> None:
        outboxes = Outboxes(bench.context, random.Random(1))
        await bench.put((KEYS.outbox("shop"), there))
        assert (await outboxes.turn("shop", TurnAsked("mine"))).yours
        assert (await outboxes.turn("shop", TurnAsked("mine", moved=3))).yours
        assert not (await outboxes.turn("shop", TurnAsked("another"))).yours
        assert (await bench.record(KEYS.outbox("shop"))).lease

    play(deed)
