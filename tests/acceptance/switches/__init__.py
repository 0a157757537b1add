"""The table of switches: each takes one feature out of the production code, and names the test that misses it.

They prove the tests, not the product. One entry is a function that is given a module (in the test's process and in
those of nodes, runners and guards: whoever loads it) and breaks it there; see `switching.py`. `python -m pytest
tests/acceptance/test_switches.py` switches off some of them, with `ROTA_SWITCHES=all` all of them.

Standard library only, at the head of each file: they are imported where a runner starts.
"""

from __future__ import annotations

from . import calls, keeping, nodes, queues

__all__ = ["WITHOUT", "calls", "keeping", "nodes", "queues"]

WITHOUT = {
    "acceptance/test_demo.py: test_every_file_is_counted_once_although_nodes_end":
        "a whole, of which each part has its own row and switch",
    "acceptance/test_outage.py: test_etcd_goes_away_under_load_and_comes_back":
        "no one place mends an outage: gRPC, clients, watches and writes each come back by themselves",
    "simulation/test_cluster.py: test_seeds": "the planted bugs of tests/simulation/mutants.py are its switches",
    "simulation/test_cluster.py: test_quiet_seeds_run_each_job_once":
        "the planted bugs of tests/simulation/mutants.py are its switches",
    "simulation/test_cluster.py: test_a_seed_is_a_reproduction": "it tests the instrument, not a feature",
    "docker/test_compose.py: test_an_etcd_member_is_killed": "needs a container engine, and etcd's own replication",
    "docker/test_compose.py: test_scaled_to_five_and_back_to_two": "needs a container engine",
    "docker/test_compose.py: test_the_masters_container_is_killed": "needs a container engine",
    "test_readme.py: test_commands_exist": "about the documentation, not about a feature",
    "test_readme.py: test_links_lead_somewhere": "about the documentation, not about a feature",
    "test_layout.py: test_a_wheel_installs_nothing_but_rota": "about the package, not about a feature",
}
"""Tests that docs/promises.md names and no switch is for, and why."""
