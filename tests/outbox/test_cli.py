"""`rota outbox …`, as a shell calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from rota.cluster.cli.app import app
from rota.outbox.relay import Relay
from rota.outbox.sqlalchemy import Outbox
from rota.testing import MemoryCluster

from . import shop


def test_the_life_of_rows(
    cluster: MemoryCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"

    def rota(*words: str) -> str:
        where = ("--database", url) if words[0] not in ("list", "--help") else ()
        done = CliRunner().invoke(app, ["outbox", *words, *where])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output + capsys.readouterr().out

    assert "is there" in rota("create") and "is there" in rota("create")
    engine, outbox = sa.create_engine(url), Outbox()
    with engine.begin() as connection:
        for text in ("good", "bad"):
            outbox.enqueue(connection, shop.note, text)
        connection.execute(sa.update(outbox.table).where(outbox.table.c.id == 2).values(job=b"no row"))
    engine.dispose()
    monkeypatch.setattr(Relay, "run", Relay.run_until_empty)
    assert "1 rows were moved" in rota("run", "--poll", "0.05", "--unsigned")
    assert "SignatureRefused" in rota("aside")
    (told,) = json.loads(rota("aside", "--json"))
    assert told["id"] == 2
    assert "1 rows will be moved" in rota("retry", "2")
    assert "0 rows were moved" in rota("run")
    assert "1 rows are gone" in rota("drop", "2")
    assert "no row" in rota("aside") and "no outbox" in rota("list")
    cluster.settle()
    assert shop.ran[-1:] == ["good"]


def test_help_teaches() -> None:
    for words in ([], ["run"], ["aside"], ["retry"], ["drop"], ["create"], ["list"]):
        said = CliRunner().invoke(app, ["outbox", *words, "--help"]).output
        assert len(said.splitlines()) > 5
    assert "takes over" in CliRunner().invoke(app, ["outbox", "run", "--help"]).output
