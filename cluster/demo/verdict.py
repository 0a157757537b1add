"""Whether the cluster's counts are right: the same files counted directly, in one process, and compared."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .tasks import Tally, look_into

Answer = Tally | str
"""What was counted in a file, or the error that it failed with."""

SHOWN_MAX = 5
PORTION = 25
"""Files that are counted between two looks at how far it is."""


@dataclass(frozen=True, slots=True)
class Totals:
    files: int
    failed: int
    lines: int
    names: int
    tokens: int

    def __str__(self) -> str:
        return (
            f"{self.files:,} files, {self.lines:,} lines, {self.names:,} top-level names, {self.tokens:,} tokens; "
            f"{self.failed:,} do not parse"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    cluster: Totals
    direct: Totals
    faults: Sequence[str]

    @property
    def good(self) -> bool:
        return not self.faults


async def count_beside(files: Sequence[Path], progress: Callable[[int], None]) -> dict[Path, Answer]:
    """Count directly in one process of its own, while the cluster counts; it gives way to the cluster's processes."""
    answers: dict[Path, Answer] = {}
    loop, spawn = asyncio.get_running_loop(), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=os.nice, initargs=(10,)) as pool:
        for start in range(0, len(files), PORTION):
            answers |= await loop.run_in_executor(pool, count_directly, files[start : start + PORTION])
            progress(len(answers))
    return answers


def count_directly(files: Sequence[Path]) -> dict[Path, Answer]:
    answers: dict[Path, Answer] = {}
    for file in files:
        try:
            answers[file] = look_into(file)
        except Exception as error:      # as in a job: any error of the task's is its outcome
            answers[file] = f"{type(error).__name__}: {error}"
    return answers


def compare(outcomes: Mapping[Path, Sequence[Answer]], direct: Mapping[Path, Answer]) -> Verdict:
    """`outcomes` are all that the cluster reported for a file: there must be one, and it must be the right one."""
    faults = []
    for file, expected in direct.items():
        found = outcomes.get(file, ())
        if len(found) != 1:
            faults.append(f"{file}: counted {len(found)} times")
        elif not _same(found[0], expected):
            faults.append(f"{file}: {found[0]} in the cluster, {expected} directly")
    faults += [f"{file}: not asked for" for file in outcomes.keys() - direct.keys()]
    cluster = totals([answer for found in outcomes.values() for answer in found])
    expected_totals = totals(list(direct.values()))
    if cluster != expected_totals:
        faults.insert(0, f"the totals differ: {cluster} in the cluster, {expected_totals} directly")
    return Verdict(cluster, expected_totals, faults)


def totals(answers: Sequence[Answer]) -> Totals:
    total = Tally(0, 0, 0)
    for answer in answers:
        if isinstance(answer, Tally):
            total = total.plus(answer)
    failed = sum(isinstance(answer, str) for answer in answers)
    return Totals(len(answers), failed, total.lines, total.names, total.tokens)


def _same(found: Answer, expected: Answer) -> bool:
    """Errors are compared by their kind: how the text of one is cut on its way is not the demo's business."""
    if isinstance(found, str) and isinstance(expected, str):
        return found.partition(":")[0] == expected.partition(":")[0]
    return found == expected
