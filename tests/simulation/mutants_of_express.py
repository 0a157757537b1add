"""Planted bugs in the express lane: see `mutants.py`."""

from __future__ import annotations

from typing import Any

from rota.cluster.ledger.commits import Write
from rota.cluster.ledger.ledger import Condition
from rota.cluster.node.intake import express
from rota.cluster.state import moves
from rota.cluster.state.express import ExpressRecord, ahead_of_nothing
from rota.cluster.state.keys import Keys

from .mutants import mutant

# mypy: disable-error-code="assignment, method-assign"


def _ahead_without(*areas: str) -> None:
    def ahead(keys: Keys, *rest: Any, **revisions: int) -> tuple[Condition, ...]:
        prefixes = tuple(getattr(keys, area) for area in areas)
        return tuple(one for one in ahead_of_nothing(keys, *rest, **revisions) if not one.key.startswith(prefixes))

    express.ahead_of_nothing = ahead


@mutant
def express_past_what_waits() -> None:
    """What waits in the queue is not compared: a job goes past others that were acknowledged before."""
    _ahead_without("jobs")
    express.Express._stands_behind = lambda self, queue: False


@mutant
def express_beside_others() -> None:
    """Whatever lies under the node: more is begun than it has slots, also beside what should be alone."""
    _ahead_without("claims")
    original = express.Express.way

    def way(self: express.Express, *arguments: Any) -> Any:
        self._begun.is_idle, self._under_way = (lambda: True), False
        return original(self, *arguments)

    express.Express.way = way


@mutant
def express_past_a_pause() -> None:
    """The queue's settings are not compared: what is enqueued while somebody pauses it begins."""
    _ahead_without("queues")


@mutant
def express_without_being_lent() -> None:
    """The master's word is not compared."""
    _ahead_without("express")
    ExpressRecord.admits = lambda self, queue: True


@mutant
def express_beside_what_is_heavy() -> None:
    """What takes several slots is given to a node by what is known of it: it may have claimed something by itself."""
    original = moves.claim

    def claim(keys: Keys, who: Any, *rest: Any, **more: Any) -> Write:
        return original(keys, tuple(one for one in who if not one.key.startswith(keys.claims)), *rest, **more)

    moves.claim = claim
