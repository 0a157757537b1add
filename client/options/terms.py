"""What few enqueues say beyond where they go: keys of their own, an end of their patience. Checked here."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

import msgspec

from ..errors import InvalidJob
from ..model import OnConflict, OnUpstream, Terms, Until
from . import checks as options

ON_CONFLICTS: tuple[OnConflict, ...] = ("existing", "raise", "replace")
ON_UPSTREAMS: tuple[OnUpstream, ...] = ("block", "cancel", "run")
UNTILS: tuple[Literal["ended", "begun"], ...] = ("ended", "begun")
IDEMPOTENCY_CHARS_MAX = 256
EXPIRES_S_MIN = 0.001
"""What has expired before it was enqueued says so: 0 means that it never does."""


class GivenTerms(NamedTuple):
    """The options of one enqueue or task; None: not said."""

    unique_key: str | int | None = None
    unique_until: str | None = None
    unique_for: float | timedelta | None = None
    on_conflict: str | None = None
    expires: timedelta | datetime | float | None = None
    idempotency_key: str | None = None
    idempotency_window: float | timedelta | None = None
    on_upstream: str | None = None
    requires: Collection[str] | None = None
    weight: int | None = None
    fair_key: str | int | None = None
    rate_key: str | int | None = None

    @property
    def anything(self) -> bool:
        return any(value is not None for value in self)

    def over(self, terms: Terms) -> Terms:
        """The terms with what is said. Raises `InvalidJob`."""
        given: dict[str, Any] = {}
        if self.unique_key is not None:
            given["unique"] = unique_key(self.unique_key)
        until: Until
        if self.unique_for is not None:
            if self.unique_until is not None:
                raise InvalidJob("unique_for and unique_until both say how long a key is held: give only one of them")
            given["until"] = "time"
            given["unique_for_s"] = options.duration_s(self.unique_for, "unique_for", zero=False)
        elif self.unique_until is not None:
            until = options.one_of(self.unique_until, UNTILS, "unique_until")
            given["until"], given["unique_for_s"] = until, 0.0
        if self.on_conflict is not None:
            given["on_conflict"] = options.one_of(self.on_conflict, ON_CONFLICTS, "on_conflict")
        if self.expires is not None:
            given["expires_s"] = expires_s(self.expires)
        if self.idempotency_key is not None:
            check_idempotency(self.idempotency_key)
        if self.idempotency_window is not None:
            given["remember_s"] = options.duration_s(self.idempotency_window, "idempotency_window", zero=False)
        if self.on_upstream is not None:
            given["on_upstream"] = options.one_of(self.on_upstream, ON_UPSTREAMS, "on_upstream")
        if self.requires is not None:
            given["requires"] = options.labels(self.requires)
        if self.weight is not None:
            given["weight"] = options.weight(self.weight)
        if self.fair_key is not None:
            given["fair_key"] = options.key(self.fair_key, "fair_key")
        if self.rate_key is not None:
            given["rate_key"] = options.key(self.rate_key, "rate_key")
        return msgspec.structs.replace(terms, **given)


def unique_key(value: str | int) -> str:
    key = options.key(value)
    if not key:
        raise InvalidJob('unique_key "" is not valid: a whole number, or a text that is not empty')
    return key


def expires_s(value: timedelta | datetime | float) -> float:
    """Of a datetime, which is worked out at each enqueue, only whether it is one of a time zone."""
    if isinstance(value, datetime):
        options.delay(value)
        return EXPIRES_S_MIN
    return options.duration_s(value, "expires", zero=False)


def check_idempotency(key: str) -> None:
    if not isinstance(key, str) or not 0 < len(key) <= IDEMPOTENCY_CHARS_MAX:
        raise InvalidJob(f"idempotency_key {key!r:.40} is not valid: a text of 1 to {IDEMPOTENCY_CHARS_MAX} characters")
