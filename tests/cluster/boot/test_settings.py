"""Where a node's settings come from, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rota.client.errors import ConfigError
from rota.client.settings.hosts import is_loopback
from rota.client.settings.local import write_secret
from rota.cluster.boot.config import EtcdConfig, NodeConfig, check_files
from rota.cluster.boot.settings import SETTINGS, load, variable

ROOT = Path(__file__).parents[3]
SECRETS = {"key_file": "k", "token_file": "t"}
GIVEN = {"etcd": "127.0.0.1:2379"} | SECRETS
HERE = {"etcd": "127.0.0.1:2379"}


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "rota.toml"
    file.write_text('ttl = 3\ngrace = 3\ncluster = "file"\nqueues = ["a", "b"]\netcd = ["e:1"]\n')
    config = load(SECRETS | {"ttl": 5, "grace": None}, {"ROTA_TTL": "4", "ROTA_GRACE": "4"}, file)
    assert (config.lease_ttl_s, config.grace_s, config.cluster) == (5, 4.0, "file")
    assert config.queues == ("a", "b")
    assert config.etcd.endpoints == ("e:1",)


def test_text_from_the_environment_becomes_numbers_and_lists() -> None:
    config = load(SECRETS, {
        "ROTA_ETCD": "a:1, b:2", "ROTA_APP": "x.y,z", "ROTA_FUNCTIONS": "false", "ROTA_ASYNC": "7", "ROTA_SYNC": "0",
    })  # fmt: skip
    assert config.etcd.endpoints == ("a:1", "b:2")
    assert config.apps == ("x.y", "z")
    assert (config.functions, config.async_capacity, config.sync_runners) == (False, 7, 0)


def test_settings_survive_the_way_to_the_node() -> None:
    config = load(GIVEN | {"app": ["shop.tasks"], "ttl": 4}, {})
    assert NodeConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(("http", "host", "port"), [
    ("7000", "127.0.0.1", 7000), ("localhost:0", "localhost", 0), ("[::1]:80", "::1", 80),
])
def test_http_address(http: str, host: str, port: int) -> None:
    config = load(GIVEN | {"http": http}, {})
    assert (config.host, config.port) == (host, port)


def test_https_endpoints_turn_tls_on() -> None:
    config = load(SECRETS | {"etcd": "https://a:1,https://b:2", "etcd_ca": "ca.pem"}, {})
    assert config.etcd == EtcdConfig(endpoints=("a:1", "b:2"), tls=True, ca_file="ca.pem")


@pytest.mark.parametrize(("given", "said"), [
    ({"etcd": ""}, "no etcd endpoint is given"),
    ({"etcd": "nonsense"}, "is no etcd endpoint"),
    ({"etcd": "a:1,https://b:2"}, "or all https"),
    ({"etcd": "a:1", "etcd_ca": "ca.pem"}, "TLS is off"),
    ({"etcd": "https://a:1", "etcd_cert": "c.pem"}, "both --etcd-cert and --etcd-key"),
    ({"etcd": "a:1", "etcd_user": "u"}, "--etcd-password-file"),
    ({"ttl": 1}, "--ttl is 1; it must lie between 2 and 3600"),
    ({"ttl": "soon"}, "`ttl`"),
    ({"grace": -1}, "--grace"),
    ({"sync": 0, "async": 0}, "could run nothing"),
    ({"app": ["my app"]}, "dotted name of a module"),
    ({"queues": "a/b"}, "not a valid queue name"),
    ({"cluster": "a/b"}, "not a valid cluster name"),
    ({"key_file": "k", "token_file": ""}, "go together"),
    ({"insecure_no_key": True}, "exclude each other"),
    ({"receipt_ttl": 60}, "receipt_ttl is 60"),
    ({"log": "loud"}, "`log`"),
])
def test_a_wrong_setting_is_named_with_what_to_do(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(GIVEN | given, {})
    assert said in str(raised.value)


@pytest.mark.parametrize(("given", "said"), [
    (HERE, "say --insecure-no-key"),
    (HERE | {"http": ":4100"}, "beyond this machine"),
    (HERE | {"http": ":4100", "insecure_no_key": True}, "beyond this machine"),
    ({"etcd": "10.0.0.1:2379"}, "this etcd is not on this machine"),
    ({"etcd": "10.0.0.1:2379", "insecure_no_key": True}, "this etcd is not on this machine"),
    ({"etcd": "127.0.0.1:2379,etcd.example.org:2379", "insecure_no_key": True}, "this etcd is not on this machine"),
])
def test_nobody_goes_without_a_key_unawares(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(given, {})
    assert said in str(raised.value)


def test_without_a_key_if_that_is_what_one_says() -> None:
    config = load(HERE, {"ROTA_INSECURE_NO_KEY": "1"}, own_key=lambda: Path("own"))
    assert (config.key_file, config.local, config.insecure_no_key) == ("", False, True)


@pytest.mark.parametrize("etcd", ["127.0.0.1:2379", "http://localhost:2379", "unix:///run/etcd/client:1"])
def test_a_node_of_one_user_on_one_machine_has_a_key_of_its_own(etcd: str) -> None:
    config = load({"etcd": etcd}, {}, own_key=lambda: Path("own"))
    assert (config.key_file, config.token_file, config.local) == ("own", "", True)
    assert NodeConfig.from_json(config.to_json()) == config
    config = load({"etcd": etcd} | SECRETS, {}, own_key=lambda: Path("own"))
    assert (config.key_file, config.local) == ("k", False)


@pytest.mark.parametrize("given", [{"etcd": "10.0.0.1:2379"}, HERE | {"http": "0.0.0.0:4100"}])
def test_a_key_of_ones_own_is_for_this_machine_only(given: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="--key-file and --token-file"):
        load(given, {}, own_key=lambda: Path("own"))


def test_etcd_on_a_socket() -> None:
    config = load(SECRETS | {"etcd": "unix:///run/a/client:1"}, {})
    assert config.etcd.endpoints == ("unix:///run/a/client:1",)
    assert config.etcd.is_local and not config.etcd.tls


def test_a_file_with_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rota.toml"
    file.write_text("tlt = 3\n")
    with pytest.raises(ConfigError, match="unknown setting tlt"):
        load(GIVEN, {}, file)


def test_named_files_must_be_there(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x")
    config = load(GIVEN | {"key_file": str(tmp_path / "key"), "token_file": str(token)}, {})
    with pytest.raises(ConfigError, match=r"--key-file: .*key does not exist; `rota init` makes it"):
        check_files(config)


@pytest.mark.parametrize(("key", "token", "said"), [
    (bytes(32), "t" * 43, "k1 can be guessed"), (bytes(range(32)), "x", "less than 16 characters"),
])
def test_a_node_does_not_start_with_secrets_that_can_be_guessed(
    key: bytes, token: str, said: str, tmp_path: Path
) -> None:
    write_secret(tmp_path / "key", f"k1:{key.hex()}")
    write_secret(tmp_path / "token", token)
    config = load(GIVEN | {"key_file": str(tmp_path / "key"), "token_file": str(tmp_path / "token")}, {})
    with pytest.raises(ConfigError, match=said) as caught:
        check_files(config)
    assert key.hex()[:8] not in str(caught.value)


@pytest.mark.parametrize(("host", "loopback"), [
    ("127.0.0.1", True), ("127.8.8.8", True), ("localhost", True), ("::1", True),
    ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False),
])
def test_what_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_every_setting_is_documented_and_has_a_flag() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    documented = set(re.findall(r"`(\w+)`", page))
    assert not SETTINGS.keys() - documented
    assert variable("etcd_ca") == "ROTA_ETCD_CA"
