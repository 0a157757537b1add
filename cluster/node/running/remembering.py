"""What jobs that run here remember: stored under their claim, before the step returns.

The first step of a bundle says so in its claim, in one transaction with the step, so that whoever has the bundle next
looks, and who ends it cleans up. Each is guarded by the claim: a run that is void stores nothing.
(docs/decisions/0031)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from rota.client.errors import LedgerError
from rota.client.model import Step

from ...context import IdentityContext
from ...ledger.ledger import Put
from ...state import moves
from ..claims.held import Held
from ..claims.memory import Memory, void
from ..claims.settlement import Settlement

AGAIN_S = 0.5
"""After this a step that the store refused is stored again."""


class Remembering:
    """One identity's. `advance`: commit the next write of a bundle."""

    def __init__(
        self, context: IdentityContext, find: Callable[[int], Held | None], advance: Callable[[Held], None]
    ) -> None:
        self._context = context
        self._find = find
        self._advance = advance

    def of(self, key: int, index: int) -> tuple[list[Step], bool]:
        """What a job that runs here remembers, and whether it is one of a serial queue. Raises `RotaError` if its run
        is void."""
        held = self._held(key, index)
        remembered = held.memory.remembered.get(index, {}) if held.memory is not None else {}
        return list(remembered.values()), held.claim.serial

    async def store(self, key: int, index: int, step: Step) -> None:
        """Returns when it is in the store. Raises `RotaError` if it cannot be: the run is void, or it is too much."""
        held = self._held(key, index)
        memory = held.memory = held.memory or Memory({})
        if step.name in memory.remembered.get(index, {}):
            return              # (another run under this claim was quicker: its runner died)
        if (under_way := memory.under_way(index, step.name)) is not None:
            await asyncio.shield(under_way)
            return
        memory.refuse_more(index, step)
        future = memory.begin(index, step.name)
        put = moves.remembered(
            self._context.keys, self._context.seal, held.bundle, index, memory.number(index), step
        )
        if not held.claim.steps:
            self._mark(held, memory, index, step, put)
            await asyncio.shield(future)
            return
        if memory.marking is not None:      # the claim does not say so yet
            await asyncio.shield(memory.marking)
        await self._store(held, memory, index, step, put)

    def _held(self, key: int, index: int) -> Held:
        held = self._find(key)
        if held is None or held.over or index not in (i for i, _ in held.without_outcome()):
            raise void()
        return held

    def _mark(self, held: Held, memory: Memory, index: int, step: Step, put: Put) -> None:
        """The first step of its bundle, with its claim."""
        marking = memory.marking = asyncio.get_running_loop().create_future()
        marking.add_done_callback(lambda done: done.cancelled() or done.exception())
        held.claim = replace(held.claim, steps=True)

        def stored() -> None:
            memory.marking = None
            if not marking.done():
                marking.set_result(None)
            memory.is_stored(index, step)

        claim = held.shown(held.done)
        held.queue.append(Settlement(moves.remember_first(held.record.key, claim, put), False, 0, stored=stored))
        self._advance(held)

    async def _store(self, held: Held, memory: Memory, index: int, step: Step, put: Put) -> None:
        context = self._context
        write = moves.remember((context.member,), held.record.key, held.record.create_revision, put)
        while not held.over:
            try:
                verdict = await context.commits.submit(write)
            except LedgerError:
                memory.was_repeated(index)
                await asyncio.sleep(AGAIN_S)
                continue
            if verdict.repeated:
                memory.was_repeated(index)
            if verdict.applied or (verdict.failed is not None and verdict.failed.key == put.key):
                memory.is_stored(index, step)
                return
            break
        memory.give_up()
        raise void()
