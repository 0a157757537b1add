"""The identities of a node, one after the other.

When a lease is lost, everything that belonged to that identity ends, its runners are dead by then, and a new identity
joins.
"""

from __future__ import annotations

import asyncio

from rota.client.errors import LedgerError, StoreRewound
from rota.client.model import HEADER_SCHEMA_MAX, JOBS_PER_BUNDLE_MAX

from ..cancellation import apart
from ..events import records as event
from ..state.nonempty import commits_of
from ..state.records import Member
from .life import Drained, Life, Parts
from .membership.membership import IdentityLost, Membership
from .membership.registration import code_of


class Identities:
    """`life`: the present one, if there is any. What becomes of its lease is told here (see `Leaseholder`)."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._standing = parts.standing
        self._events = parts.context.events
        self.life: Life | None = None
        self.count = 0

    async def run(self) -> None:
        """Until it is told to leave. Raises what made it impossible (`StoreRewound`)."""
        while not self._standing.leaving.is_set():
            pause_s = 0.0
            try:
                await apart(self._live(), "identity")
            except* Drained:
                pass
            except* IdentityLost as group:
                self._events.emit(event.IdentityEnded(self.node, str(group.exceptions[0])))
            except* StoreRewound:
                raise               # whatever this process knows is void: it starts over
            except* LedgerError as group:
                why = f"the store refused this identity: {group.exceptions[0]}"
                self._events.emit(event.IdentityEnded(self.node, why))
                pause_s = 0.5       # not waited for in here: what cancels it would come out in a group
            finally:
                self.ended()
            if not self._standing.leaving.is_set():
                await asyncio.sleep(pause_s)
                await self._bury()

    def ended(self) -> None:
        self.life = None
        self._standing.ended()

    @property
    def node(self) -> str:
        """Its name; "" while there is none."""
        return self.life.context.node if self.life is not None else ""

    @property
    def counters(self) -> tuple[int, int]:
        """Jobs taken in, and jobs finished, by the present one."""
        return (self.life.intake.taken, self.life.executor.finished) if self.life is not None else (0, 0)

    async def _live(self) -> None:
        """One identity, from joining to its end."""
        context, settings = self._parts.context, self._parts.settings
        member = self._member()
        membership = self._standing.membership = Membership(
            context, self, self._parts.reach, name=settings.name, ttl_s=settings.lease_ttl_s
        )
        joining = asyncio.ensure_future(membership.join(member))
        draining = asyncio.ensure_future(self._standing.leaving.wait())
        await asyncio.wait([joining, draining], return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        if not joining.done():
            joining.cancel()
            return
        identity = joining.result()
        self.count += 1
        self._parts.reach.served()
        self._events.emit(event.NodeJoined(identity.node, context.keys.cluster))
        async with commits_of(context.ledger, context.keys) as commits:
            self.life = Life(self._parts, commits, identity, membership, member)
            await self.life.run()

    def _member(self) -> Member:
        """What its record says of it at first."""
        parts, settings, runners = self._parts, self._parts.settings, self._parts.runners
        return Member(
            self._standing.address, list(settings.queues), capacity=dict(runners.capacity.items()),
            python=settings.python, version=settings.version, since=round(parts.context.clock.wall(), 3),
            functions=settings.functions, keys=parts.context.seal.keyring.marks, spare=dict(runners.spare.items()),
            labels=list(settings.labels), jobs_per_bundle=JOBS_PER_BUNDLE_MAX, header_schema=HEADER_SCHEMA_MAX,
            flags=True, **code_of(runners, settings.labels),
        )

    async def _bury(self) -> None:
        """Make sure that nothing of an ended identity is left: its runners first, then what else is on its lease."""
        self._parts.volatile.lose()
        await self._parts.runners.kill_all()
        try:
            async with asyncio.timeout(2.0):
                if self._standing.membership is not None:
                    await self._standing.membership.leave()
        except (TimeoutError, LedgerError):
            self._events.emit(event.RevokeFailed(self._parts.settings.name))

    # -- the lease's ups and downs -----------------------------------------------------------------------------------

    def on_renewed(self, lease: int, deadline: float) -> None:
        self._parts.runners.lease(lease, deadline)

    def on_suspended(self) -> None:
        self._events.emit(event.LeaseExpired(self.node))
        self._parts.volatile.lose()

    def on_resumed(self) -> None:
        self._events.emit(event.LeaseSurvived(self.node))
        if self.life is not None and self._standing.tasks is not None:
            self._standing.tasks.create_task(self.life.start_over(), name="start-over")
