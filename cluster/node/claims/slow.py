"""What a node does with bundles whose jobs are slow, or wait behind such: what of them it keeps, and what goes to
others. Pure: it is told what has ended, and asked.
"""

from __future__ import annotations

from typing import NamedTuple

from rota.client.model import Mode

from ...recent import Recent
from ...state.splitting import piece_name
from ...state.throughput import KEEP_SLICES, SLICE_S, Throughput

REMEMBERED_MAX = 20_000
DOUBLINGS_MAX = 3


class Pace:
    """How fast this node gets through its jobs; and which bundles it has given back, how often."""

    def __init__(self) -> None:
        self._through: dict[Mode, Throughput] = {"async": Throughput(), "sync": Throughput()}
        self._gave_back: Recent[str, int] = Recent(REMEMBERED_MAX)

    def note_ended(self, mode: Mode, jobs: int, now: float) -> None:
        """So many jobs have ended."""
        self._through[mode].add(jobs, now)

    def through(self, mode: Mode, now: float) -> int:
        """Jobs in a slice."""
        return self._through[mode].in_a_slice(now)

    def note_given_back(self, bundle: str) -> None:
        self._gave_back.put(bundle, self._gave_back.get(bundle, 0) + 1)

    def patience_s(self, bundle: str) -> float:
        """How long it may wait before it is looked at. Longer each time it comes back: nobody else may have room."""
        return SLICE_S * 2.0 ** min(self._gave_back.get(bundle, 0), DOUBLINGS_MAX)


class Share(NamedTuple):
    """`whole`: all of it goes back as it is. Else `back` goes, in pieces of `size`, and `keep` stays."""

    whole: bool
    keep: list[int]
    back: list[int]
    size: int


def is_late(here_s: float) -> bool:
    """It has been here for so long that nothing is soon over any more."""
    return here_s >= KEEP_SLICES * SLICE_S


def is_soon_over(pending: int, through: int) -> bool:
    return pending <= KEEP_SLICES * through


def share(
    bundle: str, not_begun: list[int], *, pending: int, through: int, busy: bool, late: bool, settled: bool
) -> Share:
    """Of the jobs that no runner has begun, this node keeps what it gets through in a slice, and gives the others back,
    in pieces of that size. If it gets through nothing, or they are `late`, while all its slots are `busy`, it gives
    back all; the bundle as it is, if nothing of it has begun and it is `settled`. `pending`: how many of its jobs have
    not ended."""
    nothing = busy and (through == 0 or late)
    if nothing and settled and len(not_begun) == pending:
        return Share(True, [], not_begun, len(not_begun))
    soon = is_soon_over(len(not_begun), through) and not late
    size = len(not_begun) if soon else max(1, through)      # else not worth the pieces
    back = [index for index in not_begun[0 if nothing else size:] if piece_name(bundle, [index]) != bundle]
    gone = set(back)
    return Share(False, [index for index in not_begun if index not in gone], back, size)
