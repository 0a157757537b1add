"""The outbox in a database that SQLAlchemy knows: Postgres, SQLite, MySQL, …

    outbox = Outbox(Base.metadata)                  # the table is part of your metadata: Alembic sees it

    with Session(engine) as session:
        session.add(order)
        job = outbox.enqueue(session, confirm.using(queue="mail"), order.id)
        session.commit()                            # both, or none
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Sequence
from os import PathLike
from typing import Any, ParamSpec, TypeVar, overload

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from rota.client.calls.handle import JobHandle
from rota.client.tasks.task import Target, Task, as_task
from rota.client.wire.keyring import Keyring

from .handle import OutboxHandle
from .relay import Relay
from .rows import TABLE, Aside, Counts, NewRow, Row, Signer, aside_of, checked_table, row_of

P = ParamSpec("P")
R = TypeVar("R")

POSTGRES = "postgresql"


class Outbox:
    """A table of jobs on their way.

    Args:
        metadata: where its table belongs to, as with any other of yours; None: metadata of its own (`outbox.metadata`).
        table: its name. schema: the table's schema.
        key: the file with the signing keys (or a Keyring), to sign rows with; else `ROTA_KEY_FILE`.
        notify: wake the relay by NOTIFY when a transaction is committed (Postgres only). Without, it looks by itself,
            every second.

    Raises:
        ConfigError: a name or the key file is not usable.
    """

    def __init__(
        self, metadata: sa.MetaData | None = None, *, table: str = TABLE, schema: str | None = None,
        key: Keyring | str | PathLike[str] | None = None, notify: bool = True,
    ) -> None:
        self.metadata = sa.MetaData() if metadata is None else metadata
        self.table = table_in(self.metadata, table, schema)
        self._key = key
        self._signer = Signer(key)
        self._notify = notify

    @overload
    def enqueue(
        self, session: Session | Connection, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> JobHandle[R]: ...
    @overload
    def enqueue(self, session: Session | Connection, task: Target, /, *args: Any, **kwargs: Any) -> JobHandle[Any]: ...
    def enqueue(self, session: Session | Connection, task: Target, /, *args: Any, **kwargs: Any) -> JobHandle[Any]:
        """Enqueue one job in this transaction: `outbox.enqueue(session, task.using(...), ...)`. It is stored when you
        commit, and was never there if you roll back. The handle has its id at once.

        Raises:
            InvalidJob, NotSerializable, JobTooLarge: nothing was written.
            What the database raises.
        """
        row = self._row(task, args, kwargs)
        session.execute(sa.insert(self.table).values(row._asdict()))
        if self._wakes(session):
            session.execute(sa.select(sa.func.pg_notify(self.table.name, "")))
        return OutboxHandle(row.bundle)

    @overload
    async def aenqueue(
        self, session: AsyncSession | AsyncConnection, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> JobHandle[R]: ...
    @overload
    async def aenqueue(
        self, session: AsyncSession | AsyncConnection, task: Target, /, *args: Any, **kwargs: Any
    ) -> JobHandle[Any]: ...
    async def aenqueue(
        self, session: AsyncSession | AsyncConnection, task: Target, /, *args: Any, **kwargs: Any
    ) -> JobHandle[Any]:
        """`enqueue` in the transaction of an AsyncSession or AsyncConnection."""
        row = self._row(task, args, kwargs)
        await session.execute(sa.insert(self.table).values(row._asdict()))
        if self._wakes(session):
            await session.execute(sa.select(sa.func.pg_notify(self.table.name, "")))
        return OutboxHandle(row.bundle)

    def rows(self, engine: Engine) -> SqlRows:
        """The table in that database, as a relay sees it."""
        return SqlRows(engine, self.table)

    def relay(self, engine: Engine, name: str = "default", **options: Any) -> Relay:
        """What moves the rows into rota: `Relay` explains the options. The engine is one for plain calls, not for
        asyncio."""
        return Relay(self.rows(engine), name, key=self._key, **options)

    def _row(self, task: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NewRow:
        return row_of(as_task(task).order(args, kwargs), self._signer.keyring)

    def _wakes(self, session: Session | Connection | AsyncSession | AsyncConnection) -> bool:
        if not self._notify:
            return False
        if isinstance(session, Session | AsyncSession):
            return session.get_bind(clause=self.table.select()).dialect.name == POSTGRES
        return session.dialect.name == POSTGRES


def table_in(metadata: sa.MetaData, name: str = TABLE, schema: str | None = None) -> sa.Table:
    """The outbox's table; the one that is there, if the metadata have it."""
    there = metadata.tables.get(f"{schema}.{name}" if schema else name)
    if there is not None:
        return there
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Table(
        checked_table(name), metadata,
        sa.Column("id", big, primary_key=True, autoincrement=True),
        sa.Column("bundle", sa.String(64), nullable=False, unique=True),
        sa.Column("task", sa.String(256), nullable=False),
        sa.Column("queue", sa.String(128), nullable=False),
        sa.Column("job", sa.LargeBinary(), nullable=False),
        sa.Column("stamp", sa.String(200), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("moving_ms", sa.BigInteger()),
        sa.Column("error", sa.Text()),
        sa.Column("retry_ms", sa.BigInteger()),
        schema=schema, sqlite_autoincrement=True,
    )


class SqlRows:
    """A `Rows`."""

    def __init__(self, engine: Engine, table: sa.Table) -> None:
        self._engine = engine
        self._table = table
        self._listening: Connection | None = None

    def create(self) -> None:
        """Make the table, unless it is there."""
        self._table.metadata.create_all(self._engine, [self._table])

    def fetch(self, limit: int, now_ms: int) -> list[Row]:
        c = self._table.c
        asked = sa.select(c.id, c.bundle, c.job, c.stamp, c.created_ms, c.moving_ms)
        asked = asked.where(c.error.is_(None) | (c.retry_ms <= now_ms)).order_by(c.id).limit(limit)
        with self._engine.connect() as connection:
            return [Row(*row) for row in connection.execute(asked)]

    def begin(self, ids: Sequence[int], now_ms: int) -> None:
        self._update(self._among(ids) & self._table.c.moving_ms.is_(None), moving_ms=now_ms)

    def withdraw(self, ids: Sequence[int]) -> None:
        self._update(self._among(ids), moving_ms=None)

    def delete(self, ids: Sequence[int]) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.delete(self._table).where(self._among(ids)))

    def set_aside(self, id_: int, error: str, retry_ms: int | None) -> None:
        self._update(self._among([id_]), error=error, retry_ms=retry_ms)

    def counts(self) -> Counts:
        c = self._table.c
        waits = c.error.is_(None)
        asked = sa.select(
            sa.func.count().filter(waits), sa.func.count().filter(~waits), sa.func.min(c.created_ms).filter(waits)
        ).select_from(self._table)
        with self._engine.connect() as connection:
            return Counts(*connection.execute(asked).one())

    def aside(self, limit: int) -> list[Aside]:
        c = self._table.c
        asked = sa.select(c.id, c.bundle, c.task, c.queue, c.created_ms, c.error, c.retry_ms)
        asked = asked.where(c.error.is_not(None)).order_by(c.id).limit(limit)
        with self._engine.connect() as connection:
            return [aside_of(*row) for row in connection.execute(asked)]

    def again(self, ids: Sequence[int] | None) -> int:
        which = sa.true() if ids is None else self._among(ids)
        return self._update(which & self._table.c.error.is_not(None), error=None, retry_ms=None, moving_ms=None)

    def drop(self, ids: Sequence[int]) -> int:
        """Delete rows that were set aside; returns how many."""
        with self._engine.begin() as connection:
            which = self._among(ids) & self._table.c.error.is_not(None)
            return connection.execute(sa.delete(self._table).where(which)).rowcount

    def wait(self, timeout_s: float) -> bool:
        if self._engine.dialect.name == POSTGRES:
            heard = self._heard(timeout_s)
            if heard is not None:
                return heard
        time.sleep(timeout_s)
        return False

    def close(self) -> None:
        if self._listening is not None:
            with contextlib.suppress(Exception):
                self._listening.close()
        self._listening = None

    def _heard(self, timeout_s: float) -> bool | None:
        """Whether a NOTIFY came; None if this driver cannot wait for one."""
        if self._listening is None:
            self._listening = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._listening.execute(sa.text(f'LISTEN "{self._table.name}"'))
            return True         # what came before nobody has heard: look once more
        try:
            return _heard(self._listening.connection.driver_connection, timeout_s)
        except Exception:
            self.close()        # it is made anew at the next wait
            raise

    def _among(self, ids: Sequence[int]) -> sa.ColumnElement[bool]:
        return self._table.c.id.in_(ids)

    def _update(self, which: sa.ColumnElement[bool], **values: Any) -> int:
        with self._engine.begin() as connection:
            return connection.execute(sa.update(self._table).where(which).values(values)).rowcount


def _heard(raw: Any, timeout_s: float) -> bool | None:
    if callable(getattr(raw, "notifies", None)):        # psycopg
        return len(list(raw.notifies(timeout=timeout_s, stop_after=1))) > 0
    if hasattr(raw, "poll"):                            # psycopg2
        if not select.select([raw], [], [], timeout_s)[0]:
            return False
        raw.poll()
        raw.notifies.clear()
        return True
    return None
