"""What the jobs of one bundle remember, as their node knows it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from rota.client.errors import InvalidJob, JobTooLarge, RotaError
from rota.client.model import BUNDLE_BYTES_MAX, STEPS_BYTES_MAX, STEPS_MAX, Step

from ...state.steps import Steps


class Memory:
    """Of the jobs of one bundle. `remembered`: what of it is in the store, by job and by name."""

    def __init__(self, steps: Steps, late: Iterable[int] = ()) -> None:
        self.remembered: dict[int, dict[str, Step]] = {
            index: {step.name: step for _, step in sorted(found.items())} for index, found in steps.items()
        }
        self.late = set(late)           # they ended, and a step of theirs may have come, or may come, after that
        self._forgotten: set[int] = set()       # they have ended, and what they remembered is deleted by then
        self._loose: set[int] = set()   # a write of theirs was repeated: it may apply once more when it is deleted
        self._next = {index: max(found, default=-1) + 1 for index, found in steps.items()}
        self._under_way: dict[tuple[int, str], asyncio.Future[None]] = {}
        self.marking: asyncio.Future[None] | None = None

    def number(self, index: int) -> int:
        """Of its next step."""
        number = self._next.get(index, 0)
        self._next[index] = number + 1
        return number

    def begin(self, index: int, name: str) -> asyncio.Future[None]:
        future = self._under_way[index, name] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())     # whoever waits may be gone
        return future

    def under_way(self, index: int, name: str) -> asyncio.Future[None] | None:
        return self._under_way.get((index, name))

    def is_stored(self, index: int, step: Step) -> None:
        self.remembered.setdefault(index, {})[step.name] = step
        future = self._under_way.pop((index, step.name), None)
        if future is not None and not future.done():
            future.set_result(None)

    def was_repeated(self, index: int) -> None:
        """The write of a step of this job: a twin of it may be on its way."""
        self._loose.add(index)

    def give_up(self) -> None:
        """The claim is not ours any more."""
        marking = [self.marking] if self.marking is not None else []
        for future in (*self._under_way.values(), *marking):
            if not future.done():
                future.set_exception(void())
        self._under_way.clear()

    def ended(self, indexes: Iterable[int], *, final: bool) -> list[int]:
        """Which of these jobs, that have ended, have left something to be deleted with that. `final`: their bundle
        ends, too."""
        going = [
            index for index in indexes
            if (index in self.remembered or index in self._next) and index not in self._forgotten
        ]
        running = self._loose.union(index for index, _ in self._under_way)
        self.late.update(index for index in going if index in running)
        if final:
            return sorted({*going, *self.late})
        self._forgotten.update(going)
        return going

    def leave(self, indexes: Iterable[int]) -> None:
        """These jobs go elsewhere, and what they remember is told there."""
        for index in indexes:
            self.remembered.pop(index, None)
            self._next.pop(index, None)

    def refuse_more(self, index: int, step: Step) -> None:
        """Raises what keeps a job from remembering this, too."""
        if not step.name or len(step.value) > BUNDLE_BYTES_MAX:
            raise JobTooLarge(len(step.value), BUNDLE_BYTES_MAX, f"what step {step.name!r:.80} returned")
        remembered = self.remembered.get(index, {})
        if len(remembered) >= STEPS_MAX:
            raise InvalidJob(f"a job remembers {STEPS_MAX:,} steps at the most: let it enqueue others for the rest")
        size = len(step.value) + sum(len(known.value) for known in remembered.values())
        if size > STEPS_BYTES_MAX:
            raise JobTooLarge(size, STEPS_BYTES_MAX, f"what this job remembers, with step {step.name!r:.80},")


def void() -> RotaError:
    return RotaError("this run of the job is void: its node has given it up meanwhile, and what it does counts no more")
