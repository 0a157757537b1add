from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from rota.testing import MemoryCluster

from . import databases


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    if why := databases.why_not():
        pytest.skip(why)
    with databases.postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, or one whose outbox has none of the test's tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shop.db"
    url: str = request.getfixturevalue("postgres_url")
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()
    return url


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryCluster]:
    with MemoryCluster() as made:
        monkeypatch.setenv("ROTA_URL", made.url)
        yield made


@pytest.fixture
def postgres_port(request: pytest.FixtureRequest) -> str:
    """Of an empty Postgres; "" where there is none."""
    if databases.why_not():
        return ""
    url = sa.make_url(request.getfixturevalue("postgres_url"))
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()
    return str(url.port)
