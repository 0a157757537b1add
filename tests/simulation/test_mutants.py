"""Every planted bug is found, by seeds that are green without it."""

from __future__ import annotations

import pytest

from .campaign import Verdict, run
from .mutants import MUTANTS
from .test_cluster import SEEDS


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MUTANTS)
def test_it_is_found(name: str) -> None:
    """Stops at the first seed that finds it, and says which (`pytest -s`)."""
    tried: list[Verdict] = []
    for verdict in run(range(SEEDS), setup=MUTANTS[name], stop=lambda verdict: bool(verdict.problems)):
        tried.append(verdict)
    last = tried[-1]
    print(f"\n{name}: {len(tried)} seeds, found by {last.seed}: {(last.problems or ['-'])[0][:200]}")
    assert last.problems, f"{SEEDS} seeds, and nobody notices: {MUTANTS[name].__doc__}"
