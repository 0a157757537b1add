"""Who is blamed for lost nodes (docs/decisions/0004).

    B1  a job is condemned on evidence only: its node was lost while it ran, as a suspect, for the third time; or for
        the second time, and nothing else can have run there
    B2  what is condemned so is not run again
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from rota.client.ids import index_at
from rota.cluster.ledger.memory_store import Entry
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Claim, FailedRecord, decode

from .plans import TASKS

if TYPE_CHECKING:
    from .slots import Held

LOSSES, LOSSES_ALONE = 3, 2


class Blame:
    """Judges one revision after the other."""

    def __init__(self, keys: Keys, say: Callable[[str, str], None]) -> None:
        self._keys = keys
        self._say = say
        self._ran: dict[str, set[bytes]] = {}       # node that is gone -> claims that may have run there

    def see(self, entry: Entry, members: Collection[str], claims: Mapping[bytes, Held]) -> None:
        """`members`, `claims`: before this revision."""
        keys = self._keys
        for change in entry.changes:
            record = change.event.record
            if change.event.deleted and record.key.startswith(keys.nodes):
                node = record.key[len(keys.nodes):].decode()
                self._ran[node] = {
                    key for key, held in claims.items() if held.node == node and _may_have_run(held.claim)
                }
        for change in entry.changes:
            key = change.event.record.key
            if change.event.deleted and key in claims and claims[key].node not in members:
                self._check(entry, key, claims[key])

    def _check(self, entry: Entry, key: bytes, held: Held) -> None:
        claim, ran = held.claim, self._ran.get(held.node, set())
        if not claim.pending or (claim.started and TASKS[claim.task].on_orphan == "fail"):
            return
        losses = claim.lost + claim.started
        guilty = losses >= LOSSES or (losses >= LOSSES_ALONE and claim.started and ran == {key})
        reasons = [
            failed.reason for change in entry.changes if change.event.record.key.startswith(self._keys.failed)
            and (failed := decode(FailedRecord, change.event.record.value)) is not None
            and change.event.record.key.rpartition(b"/")[2].decode() in _jobs(key, claim)
        ]
        if "orphaned" in reasons and not guilty:
            self._say("B1", f"{key.decode()} is condemned after {losses} losses, beside {len(ran - {key})} others")
        if guilty and not reasons:
            self._say("B2", f"{key.decode()} runs again after {losses} losses, beside {len(ran - {key})} others")


def _jobs(key: bytes, claim: Claim) -> list[str]:
    """Those of a claim, as keys name them: a piece has the name of the first of them."""
    bundle, _, first = key.rpartition(b"/")[2].decode().partition(".")
    return [f"{bundle}-{index_at(first) + index}" for index in range(claim.count)]


def _may_have_run(claim: Claim) -> bool:
    return claim.pending > 0 and (claim.started or not claim.suspect)
