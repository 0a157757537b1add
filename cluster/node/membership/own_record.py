"""A node's own record below `nodes/`: what it says of itself, and whether it is still there."""

from __future__ import annotations

import msgspec

from ...context import IdentityContext
from ...events.records import OverwriteMended
from ...ledger.commits import unmodified
from ...ledger.follow import Listing, follow
from ...ledger.ledger import Put, Record
from ...state.keys import shown
from ...state.records import Member, encode
from .membership import Identity, IdentityLost


class OwnRecord:
    """One identity's. The member key says whether we live; keepalives can be answered after the lease was revoked."""

    def __init__(self, context: IdentityContext, identity: Identity, member: Member) -> None:
        self._context = context
        self._identity = identity
        self.member = member
        self._left = False

    async def show(self, **changes: object) -> None:
        """Change what it says."""
        member = msgspec.structs.replace(self.member, **changes)
        if member != self.member:
            self.member = member
            await self._context.commits.write(
                (self._identity.condition,), (Put(self._identity.key, encode(member), self._identity.lease),)
            )

    def leave(self) -> None:
        """From here on nobody wonders that it goes."""
        self._left = True

    async def watch(self) -> None:
        """What somebody else writes into it is put right; but without the lease it is no member's, and others take
        over: raises `IdentityLost`."""
        identity = self._identity
        key, revision = identity.key, identity.create_revision
        async with follow(self._context.ledger, key, key + b"\0", after=revision) as news:
            async for seen in news:
                if isinstance(seen, Listing):
                    now = [record if record.create_revision == revision else None for record in seen.records] or [None]
                else:
                    now = [None if change.deleted else change.record for change in seen.events]
                for record in now:
                    is_ours = record is not None and record.lease == identity.lease
                    if not is_ours and self._left:
                        return
                    await self._look_at(record)

    async def _look_at(self, record: Record | None) -> None:
        identity = self._identity
        if record is None or record.lease != identity.lease:
            raise IdentityLost(f"the member key of {identity.node} is gone")
        if record.value != encode(self.member):
            self._context.events.emit(OverwriteMended(shown(identity.key)))
            conditions = (identity.condition, unmodified(record.key, record.mod_revision))
            await self._context.commits.write(conditions, (Put(identity.key, encode(self.member), identity.lease),))
