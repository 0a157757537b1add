"""What everything that belongs to one identity works with, and is named and guarded by."""

from __future__ import annotations

import msgspec

from rota.client.codec import Seal

from .clock import Clock
from .events.hub import Events
from .ledger.buckets import Buckets
from .ledger.commits import Commits
from .ledger.ledger import Condition, Ledger
from .state.keys import Keys


class IdentityContext(msgspec.Struct, frozen=True, kw_only=True):
    node: str                   # the identity's name
    member: Condition           # its member key lives: every write of a node has this condition
    ledger: Ledger
    commits: Commits
    keys: Keys
    clock: Clock
    seal: Seal
    buckets: Buckets
    events: Events
