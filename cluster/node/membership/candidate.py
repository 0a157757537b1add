"""Standing for election, and serving as master when elected, for as long as the identity lives."""

from __future__ import annotations

import asyncio
import logging

from rota.client.errors import StoreRewound

from ...context import IdentityContext, NodeContext
from ...events.records import BecameMaster, MastershipEnded
from ...master.election.election import Deposed, Election
from ...master.term import Master
from .standing import Standing

log = logging.getLogger(__name__)


class Candidate:
    """One identity's. `run()` is cancelled by a node that leaves, before it resigns."""

    def __init__(
        self, node: NodeContext, context: IdentityContext, lease: int, standing: Standing, *, keep_failed_s: float
    ) -> None:
        self._node = node
        self._context = context
        self._standing = standing
        self._keep_failed_s = keep_failed_s
        self._election = Election(context, lease)

    async def run(self) -> None:
        """Stand for election, serve the term, and stand again."""
        context = self._context
        while True:
            pause_s = 0.0
            try:
                fence = await self._election.campaign()
                self._standing.is_master = True
                assert isinstance(fence.operand, int)
                context.events.emit(BecameMaster(context.node, fence.operand))
                await Master(self._node, fence, node=context.node, keep_failed_s=self._keep_failed_s).run()
            except* Deposed as group:
                context.events.emit(MastershipEnded(context.node, str(group.exceptions[0])))
                pause_s = 0.1 + self._node.rng.random() * 0.1
            except* StoreRewound:
                raise
            except* Exception as group:
                log.exception("the master's term broke off, and begins anew: %s", group.exceptions[0])
                pause_s = 1.0
            finally:
                self._standing.is_master = False
            await asyncio.sleep(pause_s)

    async def resign(self) -> None:
        """Another one may be elected at once."""
        await self._election.resign(None)
