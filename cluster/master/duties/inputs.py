"""What jobs, and flows, get of those that they wait for: written beside them, signed anew, on no lease."""

from __future__ import annotations

from collections.abc import Iterator

from rota.client.model import ResultEntry

from ...context import TermContext
from ...ledger.ledger import Put, prefix_end
from ...state import moves
from ...state.records import bits
from .awaited import Waiting

BYTES_PER_WRITE = 512 * 1024


class Inputs:
    """One term's. Each write is guarded by who waits, as it was seen: False says that it is not that any more."""

    def __init__(self, context: TermContext) -> None:
        self._ledger = context.ledger
        self._keys = context.keys
        self._commits = context.commits
        self._fence = context.fence
        self._seal = context.seal

    def parts(self, waiting: Waiting, upstream: str, entries: list[ResultEntry]) -> Iterator[tuple[int, Put]]:
        """What it is to have of a bundle, cut so that no write is too large. Values go to who wants them."""
        wanted, part, size = waiting.wanted.get(upstream, 0), list[ResultEntry](), 0
        for entry in entries:
            if not wanted >> entry.index & 1:
                entry = ResultEntry(entry.index, entry.status, attempts=entry.attempts)
            weight = len(entry.value) + len(entry.error) + len(entry.traceback)
            if part and size + weight > BYTES_PER_WRITE:
                yield self._put(waiting.bundle, upstream, part)
                part, size = [], 0
            part.append(entry)
            size += weight
        if part:
            yield self._put(waiting.bundle, upstream, part)

    def _put(self, bundle: str, upstream: str, entries: list[ResultEntry]) -> tuple[int, Put]:
        return bits([entry.index for entry in entries]), moves.given(self._keys, self._seal, bundle, upstream, entries)

    async def let_in(self, waiting: Waiting, put: Put) -> bool:
        verdict = await self._commits.submit(moves.let_in((self._fence,), waiting.at, put))
        return verdict.applied or (verdict.failed is not None and verdict.failed.key == put.key)

    async def tell_badly(self, waiting: Waiting, upstream: str, jobs: int) -> bool:
        """That some (a bitmap) have failed is kept: what is left of them goes before who waits does. That they were
        retried, too. False: nothing of it is stored."""
        known_badly = waiting.badly.get(upstream, 0)
        if jobs == known_badly:
            return True
        if known_badly:
            area = self._keys.not_well(waiting.bundle, upstream, 0)[:-1]
            page = await self._ledger.read(area, prefix_end(area), keys_only=True)
            for record in page.records:
                if not (await self._commits.submit(moves.let_out((self._fence,), waiting.at, record.key))).applied:
                    return False
        if jobs and not await self.let_in(waiting, moves.not_well(self._keys, waiting.bundle, upstream, jobs)):
            return False
        waiting.badly[upstream] = jobs
        return True
