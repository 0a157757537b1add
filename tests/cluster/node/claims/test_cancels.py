"""Requests to cancel, as a node sees them."""

from __future__ import annotations

import asyncio

from rota.cluster.node.claims.cancels import Cancels

from ..bench import BUNDLE, KEYS, OTHER, Bench, a_moment, play


def test_requests_come_in_order_and_go_with_their_keys() -> None:
    async def deed(bench: Bench) -> None:
        cancels, seen = Cancels(bench.ledger, KEYS), []

        async def listen() -> None:
            async for request in cancels.requests():
                seen.append(request)

        await bench.put((KEYS.cancel(BUNDLE, 1), b"{}"), (KEYS.cancels + b"not ours", b"{}"))
        task = asyncio.create_task(listen(), name="listen")
        await a_moment()
        await bench.put((KEYS.cancel(BUNDLE, 3), b"{}"), (KEYS.cancel(f"{OTHER}.04", 4), b"{}"))
        await a_moment()
        assert seen == [(BUNDLE, 1), (BUNDLE, 3), (OTHER, 4)]
        assert cancels.of(BUNDLE) == {1, 3} and cancels.of(OTHER) == {4} and cancels.of("none") == frozenset()
        assert cancels.of(f"{BUNDLE}.03") == {1, 3}         # a piece of it
        await bench.delete(KEYS.cancel(BUNDLE, 1), KEYS.cancel(OTHER, 4))
        await a_moment()
        assert cancels.of(BUNDLE) == {3} and cancels.of(OTHER) == frozenset() and len(seen) == 3
        task.cancel()
        await asyncio.wait([task])

    play(deed)


def test_after_a_gap_those_that_are_there_are_told_again() -> None:
    async def deed(bench: Bench) -> None:
        cancels = Cancels(bench.ledger, KEYS)
        await bench.put((KEYS.cancel(BUNDLE, 1), b"{}"), (KEYS.cancel(BUNDLE, 2), b"{}"))
        requests = cancels.requests()
        assert [await anext(requests), await anext(requests)] == [(BUNDLE, 1), (BUNDLE, 2)]
        await bench.delete(KEYS.cancel(BUNDLE, 1))
        await bench.ledger.compact(await bench.put((KEYS.cancel(BUNDLE, 5), b"{}")))
        assert [await anext(requests), await anext(requests)] == [(BUNDLE, 2), (BUNDLE, 5)]
        assert cancels.of(BUNDLE) == {2, 5}
        await requests.aclose()  # type: ignore[attr-defined]

    play(deed)
