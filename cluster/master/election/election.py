"""Who is master: etcd's own election recipe, so that `etcdctl elect --listen` works on it.

A candidate puts a key named by its lease; the candidate with the lowest create revision is master. That revision is the
**fence**: every write of a master is guarded by it, so a master that has been succeeded can still run, but not commit.
Source: the `concurrency` package of etcd's Go client (election.go), as described in its documentation.
"""

from __future__ import annotations

from rota.client.errors import RotaError

from ...context import IdentityContext
from ...events.records import StrangerDeposed
from ...ledger.commits import created, unmodified
from ...ledger.follow import Listing, follow
from ...ledger.ledger import Condition, Delete, Put, Record
from ...ledger.patience import patiently
from ...state.keys import shown


class Deposed(RotaError):
    """This node is not master any more."""


class Election:
    """The candidacy of one identity. Its key is on the identity's lease: mastership and membership end together."""

    def __init__(self, context: IdentityContext, lease: int) -> None:
        self._ledger = context.ledger
        self._commits = context.commits
        self._keys = context.keys
        self._node = context.node
        self._member = context.member
        self._events = context.events
        self._lease = lease
        self.key = context.keys.candidate(lease)

    async def campaign(self) -> Condition:
        """Stand for election; return the fence once elected. Standing again after losing the key is a new candidacy."""
        while True:
            await self._stand()
            fence = await self._until_elected()
            if fence is not None:
                return fence

    async def _stand(self) -> None:
        verdict = await self._commits.write(
            (self._member, created(self.key, 0)), (Put(self.key, self._node.encode(), self._lease),)
        )
        if not verdict.applied and verdict.failed is not None and verdict.failed.key != self.key:
            raise Deposed("this node's membership has ended")

    async def _until_elected(self) -> Condition | None:
        """The fence; or None if somebody has deleted our key, or written over a candidate's."""
        ours, before_us = 0, set[bytes]()
        async with follow(self._ledger, self._keys.master) as news:
            async for seen in news:
                if isinstance(seen, Listing):
                    own = next((record for record in seen.records if record.key == self.key), None)
                    if own is None or not await self._stands(own):
                        break
                    ours = own.create_revision
                    before_us = {
                        record.key for record in seen.records
                        if record.create_revision < ours and await self._stands(record)
                    }
                else:
                    touched = {event.record.key for event in seen.events if not event.deleted}
                    gone = {event.record.key for event in seen.events if event.deleted}
                    if self.key in touched | gone or touched & before_us:
                        break
                    before_us -= gone
                if not before_us:
                    return created(self.key, ours)
        return None

    async def _stands(self, record: Record) -> bool:
        """Whether a candidate is one: named by a lease, as its node's membership is. What else lies there is no node of
        this cluster, and would be master for ever. A key that could be a fence is deleted first, so that nobody who
        ever held it can still act; other keys are left alone. (`rota doctor` names them.)"""
        lease = self._keys.parse_candidate(record.key)
        if lease is None:
            return False
        member = self._keys.nodes + record.value
        if record.lease == lease and self._keys.parse_node(member) is not None:
            page = await patiently(lambda: self._ledger.read(member, keys_only=True))
            if page.records and page.records[0].lease == lease:
                return True
        await self._delete(record)
        self._events.emit(StrangerDeposed(shown(record.key)))
        return False

    async def _delete(self, record: Record) -> None:
        await self._commits.write((self._member, unmodified(record.key, record.mod_revision)), (Delete(record.key),))

    async def resign(self, fence: Condition | None) -> None:
        """Give up the candidacy or the mastership; the next in line is master at once."""
        conditions = (fence,) if fence is not None else (self._member,)
        await self._commits.write(conditions, (Delete(self.key),))
