"""A side task's error ends nobody but itself."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import pytest

from rota.client.errors import LedgerUnavailable, StoreRewound
from rota.cluster.ledger import patience
from rota.cluster.ledger.patience import steadily


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "AGAIN_S_MIN", 0.0)


async def in_a_group(error: Exception) -> NoReturn:
    async with asyncio.TaskGroup():
        raise error


async def test_whatever_goes_wrong_it_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    troubles = [LedgerUnavailable("no answer"), KeyError("a bug"), ExceptionGroup("several", [ValueError("x")])]
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        if tries <= len(troubles):
            raise troubles[tries - 1]

    await steadily("trying", work)
    assert tries == 4
    assert [record.exc_info is None for record in caplog.records] == [True, False, False]
    assert "trying failed and begins anew in 0 s: no answer" in caplog.text


async def test_what_must_pass_passes() -> None:
    with pytest.raises(StoreRewound):
        await steadily("trying", lambda: alone(StoreRewound("another store")))
    with pytest.raises(ExceptionGroup):
        await steadily("trying", lambda: in_a_group(StoreRewound("another store")))
    with pytest.raises(LookupError):
        await steadily("trying", lambda: alone(KeyError("x")), LookupError)


async def alone(error: Exception) -> NoReturn:
    raise error


async def test_cancelled_it_ends() -> None:
    task = asyncio.create_task(steadily("waiting", asyncio.Event().wait))     # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
