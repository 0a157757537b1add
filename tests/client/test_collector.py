"""What a process that holds many jobs asks of the garbage collector."""

from __future__ import annotations

import gc

from rota.client import collector


def test_the_garbage_collector_does_not_look_through_what_was_imported_again_and_again() -> None:
    """With its defaults it took a quarter of the node's time in bulk, with passes of a tenth of a second."""
    before = gc.get_threshold()
    try:
        collector.look_rarely()
        collector.spare_imports()
        assert gc.get_freeze_count() > 1_000 and gc.get_threshold()[0] >= 10_000
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
