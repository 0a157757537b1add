"""What a master's duties work with, in tests."""

from __future__ import annotations

import random

from rota.client.wire.keyring import UNSIGNED, Seal
from rota.cluster.clock import Clock
from rota.cluster.context import TermContext
from rota.cluster.events.hub import Events
from rota.cluster.ledger.commits import Commits, created
from rota.cluster.ledger.ledger import Condition, Ledger
from rota.cluster.state.keys import Keys

NO_FENCE = created(b"no fence", 0)
RNG = random.Random(1)
"""Of all terms: leases bear numbers that are drawn from it."""


def term(
    ledger: Ledger, commits: Commits, keys: Keys, clock: Clock, *, fence: Condition = NO_FENCE, node: str = "n",
    seal: Seal | None = None, events: Events | None = None,
) -> TermContext:
    return TermContext(
        node=node, fence=fence, ledger=ledger, commits=commits, keys=keys, clock=clock, rng=RNG,
        seal=seal or Seal(UNSIGNED, "t"), events=events or Events(),
    )
