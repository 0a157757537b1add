"""Every planted bug is found, by seeds that are green without it."""

from __future__ import annotations

import os

import pytest

from .campaign import Verdict, run
from .mutants import MUTANTS
from .test_cluster import SEEDS

ALWAYS = [
    "enqueue_without_member_guard", "claims_beside_jobs", "two_commits_on_one_key", "revoke_before_reaping",
    "claims_without_fence", "no_receipt", "done_ignored_at_takeover", "dispatch_before_claims_are_known",
    "keys_unknown_to_a_new_master", "orphans_run_again", "memory_outlives_its_runners",
]
"""Planted in every run of the suite; the others with `ROTA_MUTANTS=all`, which takes some minutes."""

PLANTED = list(MUTANTS) if os.environ.get("ROTA_MUTANTS") == "all" else ALWAYS


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PLANTED)
def test_it_is_found(name: str) -> None:
    """Stops at the first seed that finds it, and says which (`pytest -s`)."""
    tried: list[Verdict] = []
    for verdict in run(range(SEEDS), setup=MUTANTS[name], stop=lambda verdict: bool(verdict.problems)):
        tried.append(verdict)
    last = tried[-1]
    print(f"\n{name}: {len(tried)} seeds, found by {last.seed}: {(last.problems or ['-'])[0][:200]}")
    assert last.problems, f"{SEEDS} seeds, and nobody notices: {MUTANTS[name].__doc__}"
