"""What a node does when the store fills up, or does not answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rota.client.errors import LedgerUnavailable
from rota.cluster.ledger.ledger import Page, StoreStatus
from rota.cluster.node.intake.pressure import HISTORY_S, LOOK_S, Pressure


def status(in_use: int, quota: int | None, revision: int, *, no_space: bool) -> StoreStatus:
    return StoreStatus("3.5.30", revision, in_use, in_use, no_space, quota, 1)


class Store:
    """Answers as it is told to."""

    def __init__(self) -> None:
        self.status_now = status(10, 100, 1, no_space=False)
        self.away = False
        self.compacted: list[int] = []

    async def read(self, key: bytes, **how: Any) -> Page:
        if self.away:
            raise LedgerUnavailable("no answer")
        return Page((), 1, False)

    async def status(self) -> StoreStatus:
        return self.status_now

    async def compact(self, revision: int) -> None:
        self.compacted.append(revision)


def made(store: Store, *, compacts: bool = False) -> tuple[Pressure, Any, list[str]]:
    intake, heard = SimpleNamespace(full=None, nearly_full=None), []
    reach = SimpleNamespace(served=lambda: heard.append("served"), failed=lambda error: heard.append("failed"))
    context = SimpleNamespace(ledger=store)
    standing = SimpleNamespace(is_master=True)
    pressure = Pressure(context, b"member", intake, reach, standing, compacts=compacts)  # type: ignore[arg-type]
    return pressure, intake, heard


async def test_enqueues_are_shed_before_the_store_is_full() -> None:
    store = Store()
    pressure, intake, heard = made(store)
    await pressure.look()
    assert (intake.full, intake.nearly_full, heard) == (None, None, ["served"])
    store.status_now = status(81, 100, 2, no_space=False)
    await pressure.look()
    assert intake.full is None and "four fifths full" in intake.nearly_full
    store.status_now = status(100, 100, 3, no_space=True)
    await pressure.look()
    assert "NOSPACE" in intake.full


async def test_a_store_that_does_not_answer_is_no_news_of_its_fill() -> None:
    store = Store()
    pressure, intake, heard = made(store)
    store.away = True
    with pytest.raises(LedgerUnavailable):
        await pressure.look()
    assert (intake.full, intake.nearly_full, heard) == (None, None, [])


@pytest.mark.parametrize("compacts", [True, False])
async def test_a_minute_of_history_is_kept_where_it_compacts(compacts: bool) -> None:
    store = Store()
    pressure, _, _ = made(store, compacts=compacts)
    looks = int(HISTORY_S / LOOK_S)
    for revision in range(1, looks + 2):
        store.status_now = status(1, None, revision, no_space=False)
        await pressure.look()
    assert store.compacted == ([1] if compacts else [])
