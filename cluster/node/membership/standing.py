"""How a node stands at present. Its life writes it down here; whoever decides by it only reads."""

from __future__ import annotations

import asyncio

from ...context import IdentityContext
from ..claims.table import Claims
from .membership import Membership


class Standing:
    """`context`: of the present identity, `tasks`: what runs as long as that lives, `claims`: what lies under it."""

    def __init__(self) -> None:
        self.phase = "starting"
        """What it is about while it is no member, for whoever asks why it is not ready."""
        self.address = ""
        """Where its port is reached."""
        self.leaving = asyncio.Event()
        self.in_a_hurry = asyncio.Event()
        self.membership: Membership | None = None
        self.is_master = False
        self.ended()

    def ended(self) -> None:
        """There is no identity now."""
        self.context: IdentityContext | None = None
        self.tasks: asyncio.TaskGroup | None = None
        self.claims = Claims()
        self.is_master = False

    @property
    def is_sure(self) -> bool:
        """Whether it is a member for certain, and stays one."""
        sure = self.membership is not None and self.membership.is_sure
        return self.context is not None and not self.leaving.is_set() and sure
