"""An outbox by its database's address: for the relays that no application starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rota.client.errors import ConfigError

if TYPE_CHECKING:
    from .sqlalchemy import SqlRows


def rows_at(database: str, table: str) -> SqlRows:
    """The rows of `table` (or `schema.table`) at SQLAlchemy's address of a database. Raises `ConfigError`."""
    try:
        import sqlalchemy as sa

        from .sqlalchemy import Outbox
    except ImportError:
        raise ConfigError("an outbox needs SQLAlchemy: pip install 'rota[outbox]' and your database's driver") from None
    schema, _, name = table.rpartition(".")
    try:
        engine: Any = sa.create_engine(database, pool_pre_ping=True)
    except (sa.exc.ArgumentError, ImportError) as error:
        raise ConfigError(f"the database's address cannot be used: {error}") from None
    except ValueError:      # (without what stands there: it may be a part of the password)
        raise ConfigError(
            "the database's address cannot be used: its port is not a number. In user and password : / @ are written "
            "%3A %2F %40"
        ) from None
    return Outbox(table=name, schema=schema or None).rows(engine)
