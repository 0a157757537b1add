"""Who is master: etcd's own election recipe, so that `etcdctl elect --listen` works on it.

A candidate puts a key named by its lease; the candidate with the lowest create revision is master. That revision is the
**fence**: every write of a master is guarded by it, so a master that has been succeeded can still run, but not commit.
Source: the `concurrency` package of etcd's Go client (election.go), as described in its documentation.
"""

from __future__ import annotations

from rota.client.errors import Compacted, RotaError

from ..ledger.commits import Commits, created
from ..ledger.ledger import Delete, Guard, Ledger, Put, prefix_end
from ..ledger.patience import patiently
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
            try:
                return await self._campaign()
            except Compacted:
                continue

    async def _campaign(self) -> Guard:
        verdict = await self._commits.write(
            (self._member, created(self.key, 0)), (Put(self.key, self._node.encode(), self._lease),)
        )
        if not verdict.applied and verdict.failed is not None and verdict.failed.key != self.key:
            raise Deposed("this node's membership has ended")
        prefix = self._keys.master
        page = await patiently(lambda: self._ledger.read(prefix, prefix_end(prefix), keys_only=True))
        candidates = {record.key: record.create_revision for record in page.records}
        if self._leads(candidates):
            return created(self.key, candidates[self.key])
        async with self._ledger.watch(prefix, prefix_end(prefix), from_revision=page.revision + 1) as watch:
            async for changes in watch:
                for event in changes.events:
                    if event.deleted:
                        candidates.pop(event.record.key, None)
                    else:
                        candidates[event.record.key] = event.record.create_revision
                if self.key not in candidates:
                    raise Compacted(changes.revision)       # somebody deleted our key: stand again
                if self._leads(candidates):
                    return created(self.key, candidates[self.key])
        raise Deposed("the watch over the election has ended")

    def _leads(self, candidates: dict[bytes, int]) -> bool:
        return self.key in candidates and candidates[self.key] == min(candidates.values())

    async def resign(self, fence: Guard | None) -> None:
        """Give up the candidacy or the mastership; the next in line is master at once."""
        guards = (fence,) if fence is not None else (self._member,)
        await self._commits.write(guards, (Delete(self.key),))
