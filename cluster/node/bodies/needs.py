"""What a verified bundle still lacks before it may run: the code that it was shipped with, what it gets of the jobs
that it waited for, what its jobs remember.
"""

from __future__ import annotations

from typing import Literal

from ...state.steps import Foreign
from ..claims.held import Held
from ..claims.memory import Memory
from .inputs import Elsewhere
from .loading import Bodies, Found

Need = Literal["function", "inputs", "steps"]


class Needs:
    """One identity's."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies

    def of(self, held: Held) -> Need | None:
        """The first thing that it lacks; None: it has everything."""
        header = held.header
        assert header is not None
        if header.function and held.code is None:
            held.code = self._bodies.function(header)
            if held.code is None:
                return "function"
        if held.claim.inputs and held.inputs is None:
            return "inputs"
        if held.claim.steps and held.memory is None:
            return "steps"
        return None

    async def fetch(self, held: Held, need: Need) -> Found | None:
        """Put it there, or say why that cannot be. None for what does not lie here any more."""
        if need == "function":
            return await self._bodies.fetch_function(held)      # `of` finds it
        if need == "inputs":
            inputs = await self._bodies.inputs(held)
            if held.over or isinstance(inputs, str | Elsewhere):
                return _refused(held, inputs)
            held.inputs = inputs
        else:
            steps = await self._bodies.steps(held)
            if held.over or isinstance(steps, str | Foreign):
                return _refused(held, steps)
            held.memory = Memory(steps, held.claim.late_indexes)
        return Found(held)


def _refused(held: Held, found: object) -> Found | None:
    if held.over:
        return None
    if isinstance(found, str):
        return Found(held, refused=found)
    assert isinstance(found, Elsewhere | Foreign)
    return Found(held, elsewhere=found.key_id)
