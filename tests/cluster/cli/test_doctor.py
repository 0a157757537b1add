"""`rota doctor` without a node's secrets."""

from __future__ import annotations

import json

import pytest
import typer

from rota.client.errors import ConfigError
from rota.cluster.cli.inspect import examine
from rota.cluster.cli.inspect.doctor import doctor


@pytest.fixture(autouse=True)
def nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROTA_KEY_FILE", "ROTA_TOKEN_FILE", "ROTA_URL", "ROTA_ETCD"):
        monkeypatch.delenv(name, raising=False)

    async def store(etcd: object, cluster: str) -> list[examine.Finding]:
        return [examine.Finding("good", f"{etcd.endpoints[0]}, cluster {cluster}")]  # type: ignore[attr-defined]

    monkeypatch.setattr(examine, "store", store)


def found(capsys: pytest.CaptureFixture[str], **flags: object) -> list[tuple[str, str]]:
    with pytest.raises(typer.Exit):
        doctor(json=True, **flags)  # type: ignore[arg-type]
    return [(finding["grade"], finding["text"]) for finding in json.loads(capsys.readouterr().out)]


def test_an_etcd_elsewhere_is_looked_at_without_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert found(capsys, etcd="etcd.example:2379") == [("good", "etcd.example:2379, cluster default")]


def test_files_of_that_etcd_are_looked_at_too(capsys: pytest.CaptureFixture[str]) -> None:
    (bad, text), _ = found(capsys, etcd="https://etcd.example:2379", etcd_ca="/nowhere/ca.pem")
    assert bad == "bad" and text == "--etcd-ca: /nowhere/ca.pem does not exist"


def test_settings_of_a_node_are_checked_as_its_own_start_would(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="go together"):
        doctor(etcd="etcd.example:2379", key_file="/nowhere/key")
    (bad, text), _ = found(capsys, etcd="etcd.example:2379", key_file="/nowhere/key", token_file="/nowhere/token")
    assert bad == "bad" and "--key-file: /nowhere/key does not exist" in text
