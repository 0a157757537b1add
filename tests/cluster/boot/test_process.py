"""What a node's process is like."""

from __future__ import annotations

import gc

from rota.cluster.boot import process


def test_the_garbage_collector_does_not_look_through_what_was_imported_again_and_again() -> None:
    """With its defaults it took a quarter of the node's time in bulk, with passes of a tenth of a second."""
    before = gc.get_threshold()
    try:
        process._settle()
        assert gc.get_freeze_count() > 1_000 and gc.get_threshold()[0] >= 10_000
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
