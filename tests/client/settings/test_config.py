"""Where a client finds its cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rota.client.errors import ConfigError
from rota.client.settings.config import DEFAULT_URL, ClientConfig, client_config
from rota.client.wire.keyring import UNSIGNED, Keyring

KEY_LINE = "k1:" + "ab" * 32


def secret(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_arguments_come_before_the_environment(tmp_path: Path) -> None:
    environ = {
        "ROTA_URL": "http://a:1, https://b:2/,,http://a:1", "ROTA_TOKEN": "from-env",
        "ROTA_KEY_FILE": secret(tmp_path / "key", KEY_LINE),
    }  # fmt: skip
    config = client_config(environ=environ)
    assert (config.urls, config.token, config.keyring.ids) == (("http://a:1", "https://b:2"), "from-env", ["k1"])
    config = client_config("c:3", token="given", key=Keyring({"k2": bytes(32)}), environ=environ)
    assert (config.urls, config.token, config.keyring.ids) == (("http://c:3",), "given", ["k2"])
    assert client_config(key=Path(environ["ROTA_KEY_FILE"]), environ={}).keyring.ids == ["k1"]


def test_with_nothing_said() -> None:
    assert client_config(key=UNSIGNED, environ={}) == ClientConfig((DEFAULT_URL,), UNSIGNED)


def test_a_token_from_a_file(tmp_path: Path) -> None:
    path = secret(tmp_path / "token", "  the-token\n")
    assert client_config(environ={"ROTA_TOKEN_FILE": path, "ROTA_TOKEN": "other"}).token == "the-token"


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    config = client_config(token="very-secret", key=secret(tmp_path / "key", KEY_LINE), environ={})
    assert repr(config) == f"<ClientConfig {DEFAULT_URL} <Keyring k1> token=yes>"


@pytest.mark.parametrize("url", [
    "", " ", ",", "ftp://x", "http://", "http://:80", "http://x:port", "http://x:99999", "http://user:pw@x", "http://x?y",
    "http://x#y", "http://[::1", "://", "x:0", "http://a b",
])  # fmt: skip
def test_bad_addresses(url: str) -> None:
    with pytest.raises(ConfigError, match="address"):
        client_config([url], environ={})


@pytest.mark.parametrize("url", [
    "localhost:4100", "http://[::1]:4100", "https://x.example/rota/", "node-1", "10.0.0.1:80", "n_1:80",
])
def test_good_addresses(url: str) -> None:
    (got,) = client_config(url, environ={}).urls
    assert got.startswith("http") and url.rstrip("/") in got and not got.endswith("/")


def test_a_range_of_ports() -> None:
    """Nodes in containers get another port of a range after a restart."""
    config = client_config("http://127.0.0.1:4100-4102,https://node:80", environ={})
    assert config.urls == (
        "http://127.0.0.1:4100", "http://127.0.0.1:4101", "http://127.0.0.1:4102", "https://node:80",
    )
    assert client_config("[::1]:4100-4101", environ={}).urls == ("http://[::1]:4100", "http://[::1]:4101")


@pytest.mark.parametrize("url", ["x:4119-4100", "x:1-4000", "x:65535-65536", "x:0-3", "x:1-"])
def test_bad_ranges_of_ports(url: str) -> None:
    with pytest.raises(ConfigError, match=r"address|upwards"):
        client_config(url, environ={})


@pytest.mark.parametrize(("options", "message"), [
    ({"token": "two words"}, "printable ASCII"),
    ({"token": "caf\u00e9"}, "printable ASCII"),
    ({"token": "a\nb"}, "printable ASCII"),
    ({"retry_window_s": 0}, "retry_window_s"),
    ({"retry_window_s": 3600}, "at most 60"),
    ({"key": "/nowhere/at/all"}, "cannot be read"),
])
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        client_config(environ={}, **options)
    assert str(options.get("token")) not in str(caught.value)


def test_bad_token_files(tmp_path: Path) -> None:
    for path, message in (
        (secret(tmp_path / "open", "token", 0o644), "chmod 600"), (secret(tmp_path / "empty", "\n"), "is empty"),
        (str(tmp_path / "none"), "cannot be read"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            client_config(environ={"ROTA_TOKEN_FILE": path})


def test_certificates_that_cannot_be_read(tmp_path: Path) -> None:
    assert client_config(environ={}).tls() is None
    for path in (secret(tmp_path / "ca.pem", "no certificate"), str(tmp_path / "none")):
        with pytest.raises(ConfigError, match="certificates"):
            client_config(ca_file=path, environ={}).tls()
