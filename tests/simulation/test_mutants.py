"""Every planted bug is found, by seeds (or, if it shows too rarely, by a test) that are green without it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import sys

import pytest

from ..cluster.ledger import test_commits
from ..cluster.master import test_term
from ..cluster.master.dispatch import test_heavy, test_rates
from ..cluster.master.duties import test_bulk, test_flows, test_lending, test_scheduler, test_takeover
from ..cluster.node.intake import test_bounds
from ..cluster.node.outcomes import test_reporter
from ..cluster.node.running import test_executor, test_remembering, test_running
from ..cluster.state import test_splitting, test_wide
from ..fitting import Changer, faults_in
from . import (
    mutants_of_blame,
    mutants_of_express,
    mutants_of_trust,
    test_express,
    test_fairness,
    test_one_trouble,
    test_trust,
)
from .campaign import Verdict, run
from .mutants import MUTANTS
from .test_cluster import SEEDS

assert mutants_of_trust.__name__ and mutants_of_blame.__name__      # imported for the bugs they plant
assert mutants_of_express.__name__

ALWAYS = [
    "enqueue_without_member_guard", "claims_beside_jobs", "two_commits_on_one_key", "revoke_before_reaping",
    "claims_without_fence", "no_receipt", "done_ignored_at_takeover", "dispatch_before_claims_are_known",
    "operations_die_with_their_master", "orphans_run_again", "bodies_are_not_compared", "nobody_is_told",
    "unique_keys_without_guard", "work_waits_for_a_node",
    "ticks_without_their_record", "nobody_waits_for_the_last", "sections_are_always_there",
    "tokens_say_how_a_task_runs", "progress_outlives_its_job", "a_heavy_job_takes_one_slot",
    "steps_without_their_claim", "a_digit_is_a_number",
]
"""Planted in every run of the suite; the others with `ROTA_MUTANTS=all`, which takes some minutes."""

RARE = {
    "a_fresh_look_with_claims_under_way":
        test_one_trouble.test_claims_under_way_count_for_a_master_that_has_to_look_afresh,
    "forgetting_by_name": test_one_trouble.test_a_bundle_that_comes_again_before_its_end_is_known,
    "runners_begin_past_the_deadline": test_one_trouble.test_a_machine_that_stood_still_begins_nothing_when_it_goes_on,
    "a_shut_out_node_keeps_its_lease": test_one_trouble.test_a_node_that_the_store_shuts_out_leaves_its_work_to_others,
    "slow_queues_hold_up_others": test_one_trouble.test_a_slow_queue_does_not_hold_up_another,
    "members_need_no_lease": test_trust.test_a_member_without_a_lease_is_nobody,
    "company_goes_first": test_takeover.test_company_counts_though_the_master_ends_half_way,
    "the_signature_of_a_bundle_is_not_looked_at":
        test_trust.test_of_what_was_signed_together_nothing_runs_if_one_is_changed,
    "retried_over_its_siblings": lambda: asyncio.run(test_bulk.test_a_job_is_not_retried_over_its_siblings()),
    "a_new_master_has_another_burst": test_rates.test_the_next_master_has_no_second_burst,
    "tenants_take_no_turns": test_fairness.test_who_has_much_waiting_does_not_keep_others_from_their_turn,
    "nothing_is_kept_for_what_is_heavy": test_heavy.test_where_slots_come_free_one_by_one_a_node_is_kept_for_it,
    "what_is_heavy_keeps_both_kinds": test_heavy.test_only_slots_of_its_kind_are_kept_for_it,
    "a_bound_without_guard": lambda: asyncio.run(test_bounds.test_of_two_nodes_one_takes_the_last_place()),
    "what_came_late_stays":
        test_remembering.test_a_step_that_came_after_the_end_of_its_job_goes_when_the_bundle_is_split,
    "what_slept_is_not_told":
        lambda: test_reporter.test_that_one_sleeps_is_told_where_the_others_expire("sleep"),
    "pieces_do_not_say_what_is_in_them": test_splitting.test_a_piece_says_which_jobs_are_in_it,
    "a_split_in_levels_forgets_the_rest":
        lambda: test_wide.test_it_is_split_in_levels_until_pieces_are_as_small_as_is_wanted(1),
    "a_graph_that_cannot_be_read_is_empty": test_flows.test_a_flow_whose_graph_cannot_be_read_is_not_over,
    "a_kill_forgets_what_ended": lambda: test_one_trouble.test_what_has_ended_waits_for_its_claim_through_an_outage(1),
    "a_stream_waits_for_somebody_else":
        test_term.test_jobs_of_a_stream_are_given_out_together_and_a_moment_later,
    "patience_without_end":
        test_commits.test_alone_it_goes_when_its_patience_is_over_counted_from_the_last_transaction,
    "what_is_due_passes_the_tail_by":
        lambda: asyncio.run(test_scheduler.test_in_a_serial_queue_what_is_due_is_its_new_end()),
    "handed_back_while_it_is_marked":
        test_running.test_a_node_that_leaves_waits_for_what_it_marks_and_hands_back_no_key_that_is_given_up,
    "express_past_what_waits": lambda: test_express.stands_before(test_express._another_that_waits),
    "express_past_a_pause": lambda: test_express.stands_before(test_express._a_pause),
    "express_past_a_limit": lambda: test_express.stands_before(test_express._a_limit),
    "express_without_being_lent": lambda: test_express.stands_before(test_express._the_masters_word),
    "express_where_no_slot_is_free":
        test_executor.test_its_own_claim_goes_back_where_what_was_given_in_that_moment_has_the_slots,
    "a_flag_is_taken_down_with_its_token":
        test_lending.test_what_is_being_given_out_waits_as_long_as_there_is_no_verdict,
    "a_flag_is_taken_down_blindly":
        test_lending.test_one_that_was_put_again_stays_though_the_master_has_not_seen_it,
    "a_queue_is_empty_before_it_was_read":
        test_lending.test_a_queue_that_is_not_known_as_a_whole_may_hold_something,
    "flags_are_read_later_than_the_queues":
        test_lending.test_of_those_that_there_were_it_learns_as_they_were_at_its_snapshot,
    "flags_of_those_who_put_none_are_missed":
        test_lending.test_what_a_node_of_the_release_before_has_left_gets_its_flag_before_anything_is_lent,
    "lent_beside_the_release_before": test_lending.test_nothing_is_lent_while_a_member_puts_no_flags,
}
"""Of some ten thousand seeds one may find these; so here are the tests that do."""

LIKELY = {
    "revoke_before_reaping": 13, "work_waits_for_a_node": 20, "done_ignored_at_takeover": 4, "orphans_run_again": 2,
    "bodies_are_not_compared": 2, "nobody_is_told": 4, "a_heavy_job_takes_one_slot": 3,
    "a_digit_is_a_number": 3, "memory_takes_a_bundle_twice": 145,
}
"""The seed that found it last is tried first. It need not be the one that finds it now."""

PLANTED = [name for name in MUTANTS if name not in RARE] if os.environ.get("ROTA_MUTANTS") == "all" else ALWAYS
FOUND = 3

OF_ITS_OWN = re.compile(r"\b(AttributeError|NameError|TypeError|UnboundLocalError)\b")
"""How a bug ends that no longer fits the code. That is nobody's merit."""


def changers() -> dict[str, tuple[Changer, str]]:
    return {name: (apply, "") for name, apply in MUTANTS.items()}


def test_they_fit_the_code() -> None:
    """All of them, in every run."""
    found = faults_in(f"{__name__}:changers")
    faults = {name: faults for name, faults in found.items() if faults}
    assert not faults, "\n".join(f"{name}: {'; '.join(faults)}" for name, faults in faults.items())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PLANTED)
def test_it_is_found(name: str) -> None:
    """Stops at the first seed that finds it, and says which (`pytest -s`)."""
    tried: list[Verdict] = []
    seeds = [LIKELY.get(name, 0), *range(SEEDS)]
    for verdict in run(seeds, setup=MUTANTS[name], stop=lambda verdict: bool(verdict.problems)):
        tried.append(verdict)
    last = tried[-1]
    print(f"\n{name}: {len(tried)} seeds, found by {last.seed}: {(last.problems or ['-'])[0][:200]}")
    assert last.problems, f"{SEEDS} seeds, and nobody notices: {MUTANTS[name].__doc__}"
    assert not OF_ITS_OWN.search(last.problems[0]), f"it was not planted, but broken: {last.problems[0]}"


@pytest.mark.parametrize("name", RARE)
def test_it_is_found_by_a_test(name: str) -> None:
    RARE[name]()
    process = multiprocessing.get_context("fork").Process(target=_plant, args=[name])
    process.start()
    process.join(60.0)
    assert process.exitcode == FOUND, f"nobody notices: {MUTANTS[name].__doc__}"


def _plant(name: str) -> None:
    """In a process of its own, for nothing can be taken back."""
    MUTANTS[name]()
    found = False
    try:
        RARE[name]()
    except* AssertionError:         # (also out of a group of tasks)
        found = True
    if found:
        sys.exit(FOUND)
