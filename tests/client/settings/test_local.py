"""Secrets that a node makes for its own user, and where clients find them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from rota.client.errors import ConfigError
from rota.client.settings.config import client_config
from rota.client.settings.local import Local

URL = "http://127.0.0.1:4100"


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of a machine without /run/user."""
    monkeypatch.setattr("rota.client.settings.local.RUN_USER", str(tmp_path / "no-run-user"))
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    (tmp_path / "run").mkdir()
    (tmp_path / "tmp").mkdir()
    return {"XDG_RUNTIME_DIR": str(tmp_path / "run")}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_clients_find_what_a_node_has_published(environ: dict[str, str]) -> None:
    local = Local(environ)
    key_file = local.key_file()
    assert local.secrets(URL) is None
    local.publish(4100, key_file.read_text(), "token-one")
    found = Local(environ).secrets(URL)
    assert found is not None and found.token == "token-one" and len(found.keyring.ids) == 1
    assert Local(environ).secrets("http://localhost:4100") is not None
    local.withdraw(4100, "another's")
    assert local.secrets(URL) is not None
    local.withdraw(4100, "token-one")
    assert local.secrets(URL) is None


def test_they_are_for_nobody_else(environ: dict[str, str], tmp_path: Path) -> None:
    local = Local(environ)
    local.publish(4100, local.key_file().read_text(), "token")
    folder = tmp_path / "run" / "rota"
    assert mode(folder) == 0o700
    assert {path.name: mode(path) for path in folder.iterdir()} == {
        "local.key": 0o600, "4100.key": 0o600, "4100.token": 0o600
    }


def test_nodes_of_one_user_share_one_key(environ: dict[str, str]) -> None:
    assert Local(environ).key_file().read_text() == Local(environ).key_file().read_text()


@pytest.mark.parametrize("url", ["http://10.0.0.1:4100", "http://example.org:4100", "http://127.0.0.1:4101"])
def test_only_for_the_node_that_published_them(url: str, environ: dict[str, str]) -> None:
    local = Local(environ)
    local.publish(4100, local.key_file().read_text(), "token")
    assert local.secrets(url) is None


def test_a_folder_that_others_can_open_is_not_used(environ: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "run" / "rota"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    local = Local(environ)
    assert local.key_file().parent.parent == tmp_path / "tmp"       # the next best
    local.publish(4100, local.key_file().read_text(), "token")
    (tmp_path / "tmp" / local.key_file().parent.name).chmod(0o777)
    assert local.secrets(URL) is None
    with pytest.raises(ConfigError, match="chmod 700"):
        local.key_file()


def test_a_link_is_not_followed(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "run" / "rota").symlink_to(tmp_path / "elsewhere")
    assert Local(environ).key_file().parent.parent == tmp_path / "tmp"


def test_who_starts_a_client_elsewhere_finds_them_too(environ: dict[str, str], tmp_path: Path) -> None:
    """Under cron or su there is no XDG_RUNTIME_DIR."""
    (tmp_path / "home" / ".local" / "state").mkdir(parents=True)
    there = {"HOME": str(tmp_path / "home")}
    Local(there).publish(4100, Local(there).key_file().read_text(), "token")
    assert Local(environ | there).secrets(URL) is not None


def test_given_secrets_come_first(environ: dict[str, str], tmp_path: Path) -> None:
    assert client_config(environ=environ).local is not None
    assert client_config(token="t", environ=environ).local is None
    assert client_config(environ=environ | {"ROTA_TOKEN": "t"}).local is None
