"""Where a client finds its cluster: arguments first, then the environment. The one place that reads `os.environ`.

    ROTA_URL            addresses of nodes, comma-separated      (default http://127.0.0.1:4100);
                        a range of ports stands for all of them: http://127.0.0.1:4100-4119
    ROTA_TOKEN_FILE     file with the bearer token; or ROTA_TOKEN with the token itself
    ROTA_KEY_FILE       file with the signing keys
    ROTA_CA_FILE        certificates to trust, for https addresses behind a private authority
    ROTA_CONNECT_TIMEOUT    how long to try while no address leads to a node, in seconds       (default 3)
    ROTA_RETRY_WINDOW       how long to repeat an enqueue that got no definite answer          (default 30)

With neither token nor key, those are used that a node on this machine has published for its own user (`local.py`).
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import ConfigError, InvalidJob
from ..options.checks import window_s
from ..wire.keyring import UNSIGNED, Keyring, check_mode
from .local import Local

HOST = re.compile(r"[\w.:%-]+\Z")
PORTS = re.compile(r"(?P<host>.*):(?P<first>[0-9]{1,5})-(?P<last>[0-9]{1,5})(?P<path>/?)")
PORTS_MAX = 100
DEFAULT_URL = "http://127.0.0.1:4100"
RETRY_WINDOW_S = 30.0
"""How long an enqueue is repeated. Nodes remember bundles for at least twice the longest window that can be
set, so a repeat never stores twice."""

CONNECT_TIMEOUT_S = 3.0
"""How long no address may lead to a node before an enqueue gives up: it is certain then that nothing was stored."""


@dataclass(frozen=True, slots=True)
class ClientConfig:
    urls: tuple[str, ...]
    keyring: Keyring = UNSIGNED
    token: str | None = None
    ca_file: str | None = None
    retry_window_s: float = RETRY_WINDOW_S
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    local: Local | None = None      # where to look for a token and a key that were not given

    def __post_init__(self) -> None:
        try:
            window_s(self.retry_window_s, "retry_window_s", zero=False)
            window_s(self.connect_timeout_s, "connect_timeout_s")
        except InvalidJob as error:
            raise ConfigError(str(error)) from None
        if self.token is not None and (not self.token.isascii() or not self.token.isprintable() or " " in self.token):
            raise ConfigError("the bearer token is not plain printable ASCII: is it the right file?")

    def tls(self) -> ssl.SSLContext | None:
        if self.ca_file is None:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise ConfigError(f"the certificates in {self.ca_file} cannot be read: {error}") from None

    def __repr__(self) -> str:
        return f"<ClientConfig {' '.join(self.urls)} {self.keyring!r} token={'yes' if self.token else 'no'}>"


def client_config(
    urls: str | Iterable[str] | None = None,
    *,
    token: str | None = None,
    key: Keyring | str | PathLike[str] | None = None,
    ca_file: str | None = None,
    retry_window_s: float | None = None,
    connect_timeout_s: float | None = None,
    environ: Mapping[str, str] = os.environ,
) -> ClientConfig:
    """What was given, and from the environment what was not. Raises `ConfigError`."""
    if urls is None:
        urls = environ.get("ROTA_URL") or DEFAULT_URL
    if isinstance(urls, str):
        urls = urls.split(",")
    checked = tuple(dict.fromkeys(_url(one) for url in urls if url.strip() for one in _ports(url.strip())))
    if not checked:
        raise ConfigError(f"no address given; one looks like {DEFAULT_URL}")
    token = token or _token(environ)
    given = key if key is not None else environ.get("ROTA_KEY_FILE") or None
    key = given if given is not None else UNSIGNED
    return ClientConfig(
        urls=checked,
        keyring=key if isinstance(key, Keyring) else Keyring.load(key),
        token=token,
        local=Local(environ) if token is None and given is None else None,
        ca_file=ca_file or environ.get("ROTA_CA_FILE") or None,
        retry_window_s=_seconds(retry_window_s, environ, "ROTA_RETRY_WINDOW", RETRY_WINDOW_S),
        connect_timeout_s=_seconds(connect_timeout_s, environ, "ROTA_CONNECT_TIMEOUT", CONNECT_TIMEOUT_S),
    )


def _seconds(given: float | None, environ: Mapping[str, str], variable: str, default: float) -> float:
    value = environ.get(variable)
    if given is not None or not value:
        return default if given is None else given
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"{variable}={value!r:.40} is not a number of seconds") from None


def _ports(text: str) -> list[str]:
    """An address with a range of ports stands for one with each of them: nodes in containers move within a range."""
    match = PORTS.fullmatch(text)
    if match is None:
        return [text]
    host, first, last, path = match["host"], int(match["first"]), int(match["last"]), match["path"]
    if not first <= last < first + PORTS_MAX:
        raise ConfigError(f"{text!r:.200} is not valid: a range of ports goes upwards, over {PORTS_MAX} ports at most")
    return [f"{host}:{port}{path}" for port in range(first, last + 1)]


def _url(text: str) -> str:
    url = text.strip()
    if "://" not in url:
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and HOST.match(parts.hostname or "") and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.username or parts.query or parts.fragment:
        raise ConfigError(f"{text!r:.200} is not the address of a node; one looks like {DEFAULT_URL}")
    return url.rstrip("/")


def _token(environ: Mapping[str, str]) -> str | None:
    name = environ.get("ROTA_TOKEN_FILE")
    if name:
        return load_token(name)
    return environ.get("ROTA_TOKEN") or None


def load_token(path: str | PathLike[str]) -> str:
    """The bearer token in a file. Raises `ConfigError`."""
    path = Path(path)
    try:
        check_mode(path, "token file")
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token file {path} cannot be read: {error}") from None
    if not token:
        raise ConfigError(f"the token file {path} is empty; `rota init` writes one")
    return token
