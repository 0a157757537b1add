"""Who is master: etcd's own election recipe, so that `etcdctl elect --listen` works on it.

A candidate puts a key named by its lease; the candidate with the lowest create revision is master. That revision is the
**fence**: every write of a master is guarded by it, so a master that has been succeeded can still run, but not commit.
Source: the `concurrency` package of etcd's Go client (election.go), as described in its documentation.
"""

from __future__ import annotations

from rota.client.errors import RotaError

from ..ledger.commits import Commits, created
from ..ledger.follow import Listing, Show, follow
from ..ledger.ledger import Delete, Guard, Ledger, Put
from ..state.keys import Keys


class Deposed(RotaError):
    """This node is not master any more."""


class Election:
    """The candidacy of one identity. Its key is on the identity's lease: mastership and membership end together."""

    def __init__(self, ledger: Ledger, commits: Commits, keys: Keys, node: str, lease: int, member: Guard) -> None:
        self._ledger = ledger
        self._commits = commits
        self._keys = keys
        self._node = node
        self._lease = lease
        self._member = member
        self.key = keys.candidate(lease)

    async def campaign(self) -> Guard:
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

    async def _until_elected(self) -> Guard | None:
        """The fence; or None if somebody has deleted our key."""
        candidates: dict[bytes, int] = {}
        async with follow(self._ledger, self._keys.master, show=Show.KEYS) as news:
            async for seen in news:
                if isinstance(seen, Listing):
                    candidates = {record.key: record.create_revision for record in seen.records}
                else:
                    for event in seen.events:
                        if event.deleted:
                            candidates.pop(event.record.key, None)
                        else:
                            candidates[event.record.key] = event.record.create_revision
                if self.key not in candidates:
                    break
                if self._leads(candidates):
                    return created(self.key, candidates[self.key])
        return None

    def _leads(self, candidates: dict[bytes, int]) -> bool:
        return self.key in candidates and candidates[self.key] == min(candidates.values())

    async def resign(self, fence: Guard | None) -> None:
        """Give up the candidacy or the mastership; the next in line is master at once."""
        guards = (fence,) if fence is not None else (self._member,)
        await self._commits.write(guards, (Delete(self.key),))
