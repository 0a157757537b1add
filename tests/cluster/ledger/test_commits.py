"""Writes that are gathered into transactions: what becomes of those that come too late."""

from __future__ import annotations

import gc

import pytest

from rota.client.errors import LedgerUnavailable
from rota.cluster.ledger.commits import Write
from rota.cluster.ledger.ledger import Put

from ..node.bench import Bench, a_moment, play


def test_a_write_after_the_end_is_refused_and_leaves_nothing_that_nobody_looked_at() -> None:
    """(`play` raises for exceptions that nobody looked at.)"""
    async def main(bench: Bench) -> None:
        await bench.commits.__aexit__()
        late = bench.commits.submit(Write((), (Put(b"/x", b""),)))
        with pytest.raises(LedgerUnavailable, match="has ended"):
            await late
        bench.commits.submit(Write((), (Put(b"/x", b""),)))
        gc.collect()
        await a_moment()

    play(main)
