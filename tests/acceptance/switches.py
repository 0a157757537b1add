"""The table of switches: each takes one feature out of the production code, and names the test that misses it.

They prove the tests, not the product. One entry is a function that is given a module (in the test's process and in
those of nodes, runners and guards: whoever loads it) and breaks it there; see `switching.py`. `python -m pytest
tests/acceptance/test_switches.py` switches off some of them, with `ROTA_SWITCHES=all` all of them.

Standard library only, at the head: it is imported where a runner starts.
"""

from __future__ import annotations

from typing import Any

from .switching import change, switch

NEVER_S = 4.0
"""The patience for what will never come: more than it takes when the feature is on, on a busy machine."""

PROMISES = "acceptance/test_promises.py"
TAKEOVER = "acceptance/test_takeover.py"
CLUSTER = "acceptance/test_cluster.py"


@switch("E4 T6 T8", f"{PROMISES}: limits_hold_over_the_cluster", "rota.cluster.aggregator",
        fails=r"most_at_once\(journal\) == limit -> AssertionError")
def max_concurrency(aggregator: Any) -> None:
    """The limit of a task is not looked at."""
    def without(allowed: Any) -> Any:
        def _allowed(self: Any, queue: Any, token: Any) -> int:
            tasks, self.tasks = self.tasks, {}
            try:
                return int(allowed(self, queue, token))
            finally:
                self.tasks = tasks

        return _allowed

    change(aggregator.Aggregator, "_allowed", without)
