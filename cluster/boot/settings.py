"""Where a node's settings come from: flags > `ROTA_*` environment > file (TOML) > defaults. Nothing else reads them."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from rota.client.errors import ConfigError
from rota.client.ids import NAME_RULE, is_name, normal
from rota.client.settings.hosts import is_loopback

from .config import UNIX, EtcdConfig, NodeConfig, split_address

SETTINGS: dict[str, str] = {
    "cluster": "cluster",
    "name": "name",
    "app": "apps",
    "queues": "queues",
    "labels": "labels",
    "http": "host",                     # host:port, see `_http`
    "http_cert": "http_cert_file",
    "http_key": "http_key_file",
    "advertise": "advertise",
    "sync": "sync_runners",
    "async": "async_capacity",
    "async_processes": "async_processes",
    "spare": "spare_runners",
    "max_jobs_per_runner": "jobs_per_runner_max",
    "max_runner_memory": "runner_mib_max",
    "ttl": "lease_ttl_s",
    "grace": "grace_s",
    "start_timeout": "start_timeout_s",
    "runner_user": "runner_user",
    "keep_result": "keep_result_s",
    "keep_finished": "keep_finished_s",
    "keep_failed": "keep_failed_s",
    "receipt_ttl": "receipt_ttl_s",
    "key_file": "key_file",
    "token_file": "token_file",
    "insecure_no_key": "insecure_no_key",
    "encrypt": "encrypt_file",
    "offload": "offload_url",
    "offload_sweep": "offload_sweep_s",
    "outbox": "outbox",
    "outbox_name": "outbox_name",
    "outbox_table": "outbox_table",
    "functions": "functions",
    "compact": "compact",
    "restart": "restart",
    "dev": "dev",
    "log": "log",
    "log_format": "log_format",
    "otel": "otel",
    "etcd": "endpoints",
    "etcd_ca": "ca_file",
    "etcd_cert": "cert_file",
    "etcd_key": "key_file",
    "etcd_user": "user",
    "etcd_password_file": "password_file",
    "etcd_transport": "transport",
    "etcd_allow_broken": "allow_broken",
}
"""The name a setting has as a flag (with dashes), as `ROTA_<NAME>` and in a file, and the field it fills."""

_LISTS = {"app", "queues", "labels", "etcd"}


def load(
    flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None = None, *,
    own_key: Callable[[], Path] | None = None,
) -> NodeConfig:
    """Merge flags (those that are not None) > environment > file > defaults. Raises `ConfigError`. `own_key` makes a
    key for a node that was given none, where it is for nobody but its own user."""
    merged = _merged(flags, environ, file)
    node = {SETTINGS[name]: _listed(name, value) for name, value in merged.items() if not name.startswith("etcd")}
    if "http" in merged:
        node["host"], node["port"] = _http(str(merged["http"]))
    etcd = _etcd(merged)
    try:
        if own_key is not None and not any(merged.get(name) for name in ("key_file", "token_file", "insecure_no_key")):
            host = node.get("host", "127.0.0.1")
            if is_loopback(host) and msgspec.convert(etcd, EtcdConfig, strict=False).is_local:
                node |= {"key_file": str(own_key()), "local": True}
        return msgspec.convert(node | {"etcd": etcd}, NodeConfig, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"a setting is wrong: {_in_their_words(str(error))}") from error


def load_store(
    flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None = None
) -> tuple[EtcdConfig, str]:
    """How etcd is reached, and the cluster's name: for who works on the store itself and needs no node's key. Raises
    `ConfigError`."""
    merged = _merged(flags, environ, file)
    cluster = str(merged.get("cluster", "default"))
    if not is_name(cluster):
        raise ConfigError(f"{cluster!r:.80} is not a valid cluster name: {NAME_RULE}")
    try:
        return msgspec.convert(_etcd(merged), EtcdConfig, strict=False), cluster
    except msgspec.ValidationError as error:
        raise ConfigError(f"a setting is wrong: {_in_their_words(str(error))}") from error


def names_secrets(flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None = None) -> bool:
    """Whether these are settings of a node: they say which key and token it has, or that it has none."""
    merged = _merged(flags, environ, file)
    return any(merged.get(name) for name in ("key_file", "token_file", "insecure_no_key"))


def _merged(flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None) -> dict[str, Any]:
    merged: dict[str, Any] = {"sync": len(os.sched_getaffinity(0))}
    merged |= _read_file(file)
    merged |= {name: environ[variable(name)] for name in SETTINGS if environ.get(variable(name))}
    merged |= {name: value for name, value in flags.items() if value is not None}
    return merged | {name: normal(str(merged[name])) for name in ("cluster", "name") if name in merged}


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"ROTA_{name.upper()}"


def _read_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        settings = tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"--config: {file}: {error}") from error
    unknown = sorted(settings.keys() - SETTINGS.keys())
    if unknown:
        raise ConfigError(f"{file}: unknown setting {', '.join(unknown)}; known are {', '.join(SETTINGS)}")
    return settings


def _etcd(merged: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `EtcdConfig`. An https:// before an endpoint turns TLS on for all; the scheme is dropped."""
    etcd = {name: value for name, value in merged.items() if name.startswith("etcd")}
    endpoints = [endpoint.rstrip("/") for endpoint in _listed("etcd", etcd.get("etcd", ()))]
    remote = [endpoint for endpoint in endpoints if not endpoint.startswith(UNIX)]
    schemes = {endpoint.partition("://")[0] if "://" in endpoint else "http" for endpoint in remote}
    if not schemes <= {"http", "https"} or len(schemes) > 1:
        raise ConfigError(
            "etcd endpoints are all host:port (or http://…), or all https://host:port; a socket is unix:///path"
        )
    etcd["etcd"] = [
        endpoint if endpoint.startswith(UNIX) else endpoint.partition("://")[2] or endpoint for endpoint in endpoints
    ]
    return {SETTINGS[name]: value for name, value in etcd.items()} | {"tls": "https" in schemes}


def _listed(name: str, value: Any) -> Any:
    """A list may be written `a,b`."""
    if name not in _LISTS:
        return value
    parts = value.split(",") if isinstance(value, str) else [part for item in value for part in str(item).split(",")]
    return [normal(part.strip()) for part in parts if part.strip()]


def _http(text: str) -> tuple[str, int]:
    """`host:port`, `:port` or `port`."""
    if text.isdigit():
        text = f"127.0.0.1:{text}"
    if text.startswith(":"):
        text = f"0.0.0.0{text}"
    return split_address(text, "HTTP address")


def _in_their_words(message: str) -> str:
    """msgspec names the field; people know the setting."""
    for name, field in SETTINGS.items():
        message = message.replace(f"$.etcd.{field}", variable(name).lower()).replace(f"$.{field}", name)
    return message
