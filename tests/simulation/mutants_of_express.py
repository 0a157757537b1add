"""Planted bugs in the express lane: see `mutants.py`."""

from __future__ import annotations

from typing import Any

from rota.cluster.ledger.ledger import Condition
from rota.cluster.master.duties.flags import Flags
from rota.cluster.master.duties.lending import Lending
from rota.cluster.node.intake import express
from rota.cluster.node.running.executor import Executor
from rota.cluster.state import nonempty
from rota.cluster.state.express import ahead_of_nothing
from rota.cluster.state.keys import Keys

from .mutants import mutant

# mypy: disable-error-code="assignment, method-assign"


def _ahead_without(area: str) -> None:
    def ahead(keys: Keys, *rest: Any, **revisions: int) -> tuple[Condition, ...]:
        begin = getattr(keys, area)
        return tuple(one for one in ahead_of_nothing(keys, *rest, **revisions) if not one.key.startswith(begin))

    express.ahead_of_nothing = ahead


@mutant
def express_past_what_waits() -> None:
    """The flag is not compared: a job goes past others that were acknowledged before."""
    _ahead_without("nonempty")


@mutant
def express_past_a_pause() -> None:
    """The queue's settings are not compared: what is enqueued while somebody pauses it begins."""
    _ahead_without("queues")


@mutant
def express_without_being_lent() -> None:
    """The master's word is not compared."""
    _ahead_without("express")


@mutant
def express_past_a_limit() -> None:
    """The task is not compared."""
    _ahead_without("tasks")


@mutant
def express_where_no_slot_is_free() -> None:
    """What it was given in that moment is not looked at: a job waits here, though others may have room."""
    Executor._has_come_too_late = lambda self, held: False


@mutant
def a_writer_forgets_the_flag() -> None:
    """Tokens that come back are put without it."""
    original = nonempty.flags

    def flags(keys: Keys) -> Any:
        along = original(keys)
        return lambda op: along(op) if b'"attempt"' not in getattr(op, "value", b"") else None

    nonempty.flags = flags


@mutant
def a_flag_is_taken_down_with_its_token() -> None:
    """What is being given out has left its queue already, for the master: but his claim may come to nothing."""
    original = Flags.take_down

    def take_down(self: Flags, commits: Any, now: float) -> float:
        picture = self._picture
        deciding, picture.deciding = picture.deciding, {}
        try:
            return original(self, commits, now)
        finally:
            picture.deciding = deciding

    Flags.take_down = take_down


@mutant
def a_flag_is_taken_down_whatever_waits() -> None:
    """That it has been up for a while is enough."""
    Flags._is_empty = lambda self, queue: True


@mutant
def a_flag_is_taken_down_blindly() -> None:
    """It is not compared: what has been put into the queue since is not seen."""
    original = Flags.take_down

    def take_down(self: Flags, commits: Any, now: float) -> float:
        class Blind:
            def submit(self, write: Any) -> Any:
                return commits.submit(type(write)(write.conditions[:1], write.ops))

        return original(self, Blind(), now)     # type: ignore[arg-type]

    Flags.take_down = take_down


@mutant
def flags_are_read_later_than_the_queues() -> None:
    """A new master knows flags of jobs that he does not know."""
    original = Lending.load

    async def load(self: Lending, revision: int) -> None:
        await original(self, 0)

    Lending.load = load


@mutant
def a_flag_stays_up() -> None:
    """Nobody takes it down."""
    Flags.take_down = lambda self, commits, now: now


@mutant
def flags_of_those_who_put_none_are_missed() -> None:
    """What a node of the release before has stored has none, and nobody looks."""
    Flags.missing = lambda self: []


@mutant
def lent_beside_the_release_before() -> None:
    """Whether members put flags is not asked."""
    Lending._all_put_flags = lambda self: True


@mutant
def a_queue_is_empty_before_it_was_read() -> None:
    """Pages that are under way, and pieces that are being made, are not waited for."""
    Flags._is_empty = lambda self, queue: not any(window.places for window in queue.windows.values())
