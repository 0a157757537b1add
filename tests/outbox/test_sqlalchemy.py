"""Jobs that are enqueued in a transaction of SQLAlchemy's: on SQLite and on a real Postgres, to a real node."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import rota
from rota.client.errors import InvalidJob
from rota.outbox.relay import Relay
from rota.outbox.sqlalchemy import Outbox, SqlRows
from rota.testing import MemoryCluster

from . import shop


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str]


outbox = Outbox(Base.metadata)


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    made = sa.create_engine(url)
    Base.metadata.create_all(made)
    shop.ran.clear()
    yield made
    made.dispose()


@pytest.fixture
def relay(cluster: MemoryCluster, engine: sa.Engine) -> Relay:
    return outbox.relay(engine, urls=cluster.url)


def count(engine: sa.Engine, table: sa.FromClause = outbox.table) -> int:
    with engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


class Killed(Exception):
    """A relay that dies after a row's move, and before its deletion."""


def killed(ids: object) -> None:
    raise Killed


def test_both_or_none(engine: sa.Engine, relay: Relay, cluster: MemoryCluster) -> None:
    with Session(engine) as session:
        session.add(Order(id=1, what="tea"))
        handle = outbox.enqueue(session, shop.note, "tea")
        assert handle.id and count(engine) == 0
        session.commit()
    with Session(engine) as session:
        session.add(Order(id=2, what="coffee"))
        lost = outbox.enqueue(session, shop.note, "coffee")
        session.rollback()
    assert count(engine) == 1
    assert relay.run_until_empty() == 1
    assert handle.result(timeout=60) == "tea"
    assert count(engine) == 0 and count(engine, Order.__table__) == 1 and shop.ran == ["tea"]
    with pytest.raises(rota.JobUnknown):
        lost.result(timeout=0)


def test_all_options_travel(engine: sa.Engine, relay: Relay, cluster: MemoryCluster) -> None:
    with Session(engine) as session:
        later = outbox.enqueue(session, shop.note.using(run_after=3600, queue="mail", priority=7), "later")
        alone = outbox.enqueue(session, shop.note.using(unique_key="k", run_after=3600), "alone")
        outbox.enqueue(session, shop.note.using(unique_key="k", run_after=3600), "not alone")
        late = outbox.enqueue(session, shop.note.using(expires=7200, run_after=7300), "late")
        retried = outbox.enqueue(session, shop.shaky.using(backoff_base=0.01, max_attempts=2), "x")
        told = outbox.enqueue(session, shop.tenant.using(headers={"tenant": "acme"}))
        by_name = outbox.enqueue(session, "tests.outbox.shop:note", "by name")
        parts = [outbox.enqueue(session, shop.note, text) for text in "ab"]
        whole = outbox.enqueue(session, shop.joined, *parts)
        behind = outbox.enqueue(session, shop.note.using(after=whole), "behind")
        session.commit()
    relay.run_until_empty()
    assert retried.result(timeout=60) == 2
    assert told.result(timeout=60) == "acme"
    assert by_name.result(timeout=60) == "by name"
    assert whole.result(timeout=60) == "a+b"
    assert behind.result(timeout=60) == "behind"
    view = later.status()
    assert (view.place, view.queue) == ("scheduled", "mail")
    assert alone.status().place == "scheduled"
    cluster.travel(hours=3)
    assert later.result(timeout=60) == "later" and "not alone" not in shop.ran
    with pytest.raises(rota.JobExpired):
        late.result(timeout=60)
    with Session(engine) as session, pytest.raises(InvalidJob, match="unique_key"):
        outbox.enqueue(session, shop.note.using(idempotency_key="k"), "x")


def test_rows_keep_their_order(engine: sa.Engine, relay: Relay, cluster: MemoryCluster) -> None:
    """Also those of several processes, whose jobs' names say nothing of which was first."""
    from rota.client.ids import Names
    from rota.outbox import rows

    cluster.client.set_queue("strict", paused=True)
    task, texts, own = shop.note.using(queue="strict"), [f"{number:02d}" for number in range(40)], rows._names
    try:
        for text in texts:
            if int(text) % 4 == 0:
                rows._names = Names()
            with Session(engine) as session:
                outbox.enqueue(session, task, text)
                session.commit()
    finally:
        rows._names = own
    relay.run_until_empty()
    listed = cluster.client.jobs("waiting", queue="strict")
    told = [cluster.client.arguments(job.id)[0][0] for job in listed]
    assert told == texts


def test_a_row_that_was_moved_is_not_moved_again(engine: sa.Engine, cluster: MemoryCluster) -> None:
    """The relay died after the move: the next one gets the answer of the first, whatever is different meanwhile."""
    rows = outbox.rows(engine)
    delete, rows.delete = rows.delete, killed               # type: ignore[method-assign]
    with Session(engine) as session:
        outbox.enqueue(session, shop.note, "once")
        outbox.enqueue(session, shop.note.using(run_after=0.2), "once later")
        session.commit()
    with pytest.raises(Killed):
        Relay(rows, urls=cluster.url).run_until_empty()
    until(lambda: sorted(shop.ran) == ["once", "once later"])
    assert count(engine) == 2
    rows.delete = delete                                    # type: ignore[method-assign]
    Relay(rows, urls=cluster.url).run_until_empty()
    cluster.settle()
    assert count(engine) == 0 and sorted(shop.ran) == ["once", "once later"]


def test_what_cannot_be_told_any_more_is_set_aside(engine: sa.Engine, cluster: MemoryCluster) -> None:
    with Session(engine) as session:
        known = outbox.enqueue(session, shop.note, "known")
        outbox.enqueue(session, shop.note, "unknown")
        session.commit()
    first = outbox.relay(engine, urls=cluster.url, remember=60)
    rows = outbox.rows(engine)
    delete, rows.delete = rows.delete, killed               # type: ignore[method-assign]
    first._rows = rows
    with pytest.raises(Killed):
        first.run_until_empty()
    rows.delete = delete                                    # type: ignore[method-assign]
    with engine.begin() as connection:
        connection.execute(sa.update(outbox.table).values(moving_ms=1))
        connection.execute(sa.update(outbox.table).where(outbox.table.c.id == 2).values(bundle="0123456789ab-00000001"))
    outbox.relay(engine, urls=cluster.url).run_until_empty()
    assert known.result(timeout=60) == "known"
    (aside,) = rows.aside(10)
    assert "cannot be told" in aside.error and not aside.retried


def test_a_row_that_cannot_be_moved_is_set_aside_and_the_rest_goes_on(
    engine: sa.Engine, relay: Relay, cluster: MemoryCluster
) -> None:
    with Session(engine) as session:
        outbox.enqueue(session, "tests.nowhere:task", 1)
        outbox.enqueue(session, shop.note.using(after="0123456789ab_00000001_0"), "never")
        outbox.enqueue(session, shop.note, "forged")
        handle = outbox.enqueue(session, shop.note, "good")
        session.commit()
        session.execute(sa.update(outbox.table).where(outbox.table.c.id == 3).values(stamp=""))
        session.commit()
    relay.run_until_empty()
    assert handle.result(timeout=60) == "good" and "forged" not in shop.ran
    rows = outbox.rows(engine)
    unknown, waits, forged = rows.aside(10)
    assert unknown.error.startswith("UnknownTask") and unknown.retried
    assert "unknown" in waits.error and not waits.retried
    assert forged.error.startswith("SignatureRefused") and "not signed" in forged.error
    assert rows.again([forged.id]) == 1
    outbox.relay(engine, urls=cluster.url, unsigned=True).run_until_empty()     # the owner trusts the table
    cluster.settle()
    assert "forged" in shop.ran and rows.drop([unknown.id, waits.id]) == 2 and count(engine) == 0


def test_one_relay_at_a_time(engine: sa.Engine, cluster: MemoryCluster) -> None:
    first, second = (outbox.relay(engine, "shop", urls=cluster.url, poll=0.05) for _ in range(2))
    with first, second:
        for number in range(20):
            with Session(engine) as session:
                outbox.enqueue(session, shop.note, str(number))
                session.commit()
            if number == 9:
                until(lambda: first.moved + second.moved == 10)
                (first if first.moved else second).stop()       # the other goes on
        handle = outbox_enqueue(engine, "last")
        assert handle.result(timeout=60) == "last"
        (view,) = cluster.client.outboxes()
        assert (view.name, view.aside) == ("shop", 0)
    assert first.moved + second.moved == 21 and min(first.moved, second.moved) > 0
    assert sorted(shop.ran) == sorted([*map(str, range(20)), "last"])


def outbox_enqueue(engine: sa.Engine, text: str) -> rota.JobHandle[str]:
    with engine.begin() as connection:      # a Connection does as well
        return outbox.enqueue(connection, shop.note, text)


def test_a_commit_wakes_the_relay(engine: sa.Engine, cluster: MemoryCluster) -> None:
    if engine.dialect.name != "postgresql":
        pytest.skip("only Postgres has NOTIFY")
    with outbox.relay(engine, urls=cluster.url, poll=30):
        outbox_enqueue(engine, "first").result(timeout=60)
        assert outbox_enqueue(engine, "second").result(timeout=60) == "second"      # long before it would look


def test_a_database_that_goes_while_the_relay_rests(
    engine: sa.Engine, cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, broken = SqlRows.wait, threading.Event()

    def wait(self: SqlRows, timeout_s: float) -> bool:
        if not broken.is_set():
            broken.set()
            raise sa.exc.OperationalError("LISTEN", None, OSError("server closed the connection"))
        return real(self, timeout_s)

    monkeypatch.setattr(SqlRows, "wait", wait)
    with outbox.relay(engine, urls=cluster.url):
        assert broken.wait(30)
        assert outbox_enqueue(engine, "after").result(timeout=60) == "after"


async def test_in_an_asynchronous_session(url: str, engine: sa.Engine, cluster: MemoryCluster) -> None:
    made = create_async_engine(url.replace("sqlite:", "sqlite+aiosqlite:"))
    try:
        async with AsyncSession(made) as session:
            session.add(Order(id=1, what="tea"))
            handle = await outbox.aenqueue(session, shop.note, "tea")
            await session.commit()
        async with made.begin() as connection:
            other = await outbox.aenqueue(connection, shop.note, "coffee")
    finally:
        await made.dispose()
    relay = outbox.relay(engine, urls=cluster.url, poll=0.05).start()
    assert await handle.aresult(timeout=60) == "tea" and await other.aresult(timeout=60) == "coffee"
    relay.stop()
