"""Whether this node takes jobs in at present."""

from __future__ import annotations

import asyncio

from rota.client.errors import EnqueueError, Overloaded
from rota.client.model import Enqueue, Receipt

from ...context import IdentityContext
from ...state.directory import Directory
from ..membership.reach import Reach
from ..membership.standing import Standing
from .intake import Intake

NO_MEMBER = "this node is not a member of the cluster now; try another"


class Admission:
    """One identity's. `registered`: the tasks of this node are known to the cluster; before that it would refuse its
    own as unknown."""

    def __init__(
        self, context: IdentityContext, standing: Standing, reach: Reach, directory: Directory, intake: Intake
    ) -> None:
        self._context = context
        self._standing = standing
        self._reach = reach
        self._directory = directory
        self._intake = intake
        self.registered = asyncio.Event()

    async def enqueue(self, bundles: list[Enqueue], seen_revision: int) -> list[Receipt | EnqueueError]:
        """Raises `Overloaded` where another node had better be asked."""
        if self._standing.context is not self._context:
            raise Overloaded(NO_MEMBER, 0.2)
        if (unserved := self._reach.why_not(self._context.commits.waits_s)) is not None:
            raise Overloaded(unserved, 1.0)
        await self.registered.wait()
        await self._directory.listed.wait()     # what it does not know, it would take a serial queue for any other
        return await self._intake.enqueue(bundles, seen_revision)
