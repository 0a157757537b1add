"""What everything of a node works with, and what belongs to one identity is named and guarded by."""

from __future__ import annotations

import random

import msgspec

from rota.client.wire.keyring import Seal

from .clock import Clock
from .events.hub import Events
from .ledger.buckets import Buckets
from .ledger.commits import Commits
from .ledger.ledger import Condition, Ledger
from .state.keys import Keys


class NodeContext(msgspec.Struct, frozen=True, kw_only=True):
    """What outlives a node's identities."""

    ledger: Ledger
    keys: Keys
    clock: Clock
    rng: random.Random
    seal: Seal
    events: Events


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


class TermContext(msgspec.Struct, frozen=True, kw_only=True):
    """What the duties of a master work with, as long as its term lasts."""

    node: str                   # whose term it is
    fence: Condition            # its election key is the oldest: every write of a master has this condition
    ledger: Ledger
    commits: Commits
    keys: Keys
    clock: Clock
    rng: random.Random
    seal: Seal
    events: Events
