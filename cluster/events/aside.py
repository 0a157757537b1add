"""From a job that was set aside to the event that says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .hub import Events
from .records import JobSetAside


class Named(Protocol):
    """What is needed of a token."""

    @property
    def task(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def attempt(self) -> int: ...


def teller(events: Events) -> Callable[[str, list[int], Named, str], None]:
    """For `SetAside`."""

    def tell(bundle: str, indexes: list[int], token: Named, error: str) -> None:
        for index in indexes:
            events.emit(JobSetAside(bundle, index, token.task, token.queue, token.attempt, error))

    return tell
