"""Where events are emitted and listened to: one hub per node."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from rota.client.model import Outcome

from .records import ClusterEvent

log = logging.getLogger(__name__)

Listener: TypeAlias = Callable[[ClusterEvent], None]
Counter: TypeAlias = Callable[[str, Sequence[Outcome]], None]


class Events:
    """Listeners are called at once, on the node's loop, in the order in which they came: they must not block. One that
    raises is named in the log and hurts nobody else."""

    def __init__(self) -> None:
        self._listeners: dict[type[ClusterEvent], tuple[Listener, ...]] = {}     # replaced, never changed
        self._counters: tuple[Counter, ...] = ()

    def listen(self, listener: Listener, kinds: Iterable[type[ClusterEvent]]) -> Callable[[], None]:
        """Hear events of these kinds from now on. Returns what ends it."""
        heard = list(kinds)
        for kind in heard:
            self._listeners[kind] = (*self._listeners.get(kind, ()), listener)

        def stop() -> None:
            for kind in heard:
                rest = list(self._listeners[kind])
                if listener in rest:
                    rest.remove(listener)
                self._listeners[kind] = tuple(rest)

        return stop

    def emit(self, event: ClusterEvent) -> None:
        for listener in self._listeners.get(type(event), ()):
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed at %s", event.name)

    def count_runs(self, counter: Counter) -> None:
        """Hear of all runs of jobs that end: the task, and the outcomes of some of its jobs. For who only counts them:
        an event for each (`JobEnded`) costs more than all else that becomes of an outcome, and is made for who listens
        to that kind."""
        self._counters = (*self._counters, counter)

    def runs_ended(self, task: str, outcomes: Sequence[Outcome]) -> None:
        for counter in self._counters:
            try:
                counter(task, outcomes)
            except Exception:
                log.exception("a counter failed at outcomes of %s", task)

    def wanted(self, kind: type[ClusterEvent]) -> bool:
        """Whether anybody listens to a kind: on the hot path, what nobody hears need not be made."""
        return bool(self._listeners.get(kind))
