"""What of the backlog has to be read on. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from .commands import LoadPage
from .members import NodeLoad
from .queues import Window

PAGE_NEXT = 10_000


def pages_wanted(partial: set[Window], nodes: Collection[NodeLoad], *, all_seen: bool) -> Iterator[LoadPage]:
    """What has to be read on, since little of it is left, or since nothing of it can be run: `all_seen`, and a node
    that serves the queue is idle."""
    for window in list(partial):
        queue = window.queue
        if not window.is_partial:
            partial.discard(window)
            continue
        idle = all_seen and queue.gives_out and any(
            node.serves(queue.name) and node.has_slot for node in nodes
        )
        after = window.wants(more=idle)
        if after is not None:
            window.loading = after
            yield LoadPage(queue.name, window.priority, after, PAGE_NEXT)
