"""Where events are emitted and listened to: one hub per node."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeAlias

from .records import ClusterEvent

log = logging.getLogger(__name__)

Listener: TypeAlias = Callable[[ClusterEvent], None]


class Events:
    """Listeners are called at once, on the node's loop, in the order in which they came: they must not block. One that
    raises is named in the log and hurts nobody else."""

    def __init__(self) -> None:
        self._listeners: dict[type[ClusterEvent], list[Listener]] = {}

    def listen(self, listener: Listener, kinds: Iterable[type[ClusterEvent]]) -> Callable[[], None]:
        """Hear events of these kinds from now on. Returns what ends it."""
        heard = [self._listeners.setdefault(kind, []) for kind in kinds]
        for listeners in heard:
            listeners.append(listener)

        def stop() -> None:
            for listeners in heard:
                if listener in listeners:
                    listeners.remove(listener)

        return stop

    def emit(self, event: ClusterEvent) -> None:
        for listener in tuple(self._listeners.get(type(event), ())):
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed at %s", event.name)

    def wanted(self, kind: type[ClusterEvent]) -> bool:
        """Whether anybody listens to a kind: on the hot path, what nobody hears need not be made."""
        return bool(self._listeners.get(kind))
