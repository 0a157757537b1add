"""The table as a relay sees it, through Django's connections."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from django.db import close_old_connections, connections
from django.db.models import F, Min, Q, QuerySet

from ..rows import Aside, Counts, Row, aside_of
from .models import OutboxRow

_WAITS = Q(error__isnull=True)


class DjangoRows:
    """A `Rows`. Without NOTIFY: Django's connections have no common way to hear it, so it looks by itself."""

    def __init__(self, using: str) -> None:
        self._using = using

    def fetch(self, limit: int, now_ms: int) -> list[Row]:
        close_old_connections()
        found = self._all().filter(_WAITS | Q(retry_ms__lte=now_ms)).order_by("id")
        columns = found.values_list("id", "bundle", "job", "stamp", "created_ms", "moving_ms")[:limit]
        return [Row(id_, bundle, bytes(job), *rest) for id_, bundle, job, *rest in columns]

    def begin(self, ids: Sequence[int], now_ms: int) -> None:
        self._among(ids).filter(moving_ms__isnull=True).update(moving_ms=now_ms)

    def withdraw(self, ids: Sequence[int]) -> None:
        self._among(ids).update(moving_ms=None)

    def delete(self, ids: Sequence[int]) -> None:
        self._among(ids).delete()

    def set_aside(self, id_: int, error: str, retry_ms: int | None) -> None:
        self._among([id_]).update(error=error, retry_ms=retry_ms)

    def counts(self) -> Counts:
        waiting = self._all().filter(_WAITS)
        return Counts(
            waiting.count(), self._all().exclude(_WAITS).count(), waiting.aggregate(at=Min(F("created_ms")))["at"]
        )

    def aside(self, limit: int) -> list[Aside]:
        columns = self._all().exclude(_WAITS).order_by("id").values_list(
            "id", "bundle", "task", "queue", "created_ms", "error", "retry_ms"
        )
        return [aside_of(*row) for row in columns[:limit]]

    def again(self, ids: Sequence[int] | None) -> int:
        which = (self._all() if ids is None else self._among(ids)).exclude(_WAITS)
        return int(which.update(error=None, retry_ms=None, moving_ms=None))

    def wait(self, timeout_s: float) -> bool:
        time.sleep(timeout_s)
        return False

    def close(self) -> None:
        connections.close_all()

    def _all(self) -> QuerySet[Any]:
        return OutboxRow.objects.using(self._using).all()

    def _among(self, ids: Sequence[int]) -> QuerySet[Any]:
        return self._all().filter(pk__in=ids)
