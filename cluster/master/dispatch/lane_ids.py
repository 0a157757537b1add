"""Which tokens can go to the same nodes, and share a key of limits: the names of families and lanes. Values."""

from __future__ import annotations

from typing import NamedTuple

from rota.client.model import Mode

from ...state.records import Token

PLAIN, SUSPECT, LOST = range(3)
"""How careful to be: its node was lost; its node was lost while it ran."""


class LaneId(NamedTuple):
    """Tokens that can go to the same nodes. `mode` is that of shipped code; a task that is known by name runs in the
    mode that its node has."""

    task: str
    mode: Mode | None
    python: str
    function: bool
    care: int
    keyed: bool                 # a limit per key may count them
    signed: str | None = None   # with which key
    weight: int = 1             # slots that each takes
    requires: tuple[str, ...] = ()      # labels, beside those of the task

    @property
    def alone(self) -> bool:
        """It was lost while it ran: it should run where nothing else does (decision 0004)."""
        return self.care == LOST


def lane_of(token: Token) -> LaneId:
    shipped = bool(token.function)
    care = LOST if token.lost else SUSPECT if token.orphanings else PLAIN
    return LaneId(
        token.task, token.mode if shipped else None, token.python, shipped, care, bool(token.key), token.signed,
        token.weight, token.requires,
    )


def lane_name(token: Token) -> str:
    """Its lane in its family. (Keys are printable.)"""
    if token.fair or token.rate_key:
        return f"{token.key}\0{token.rate_key}\0{token.fair}"
    return token.key
