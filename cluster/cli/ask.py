"""How commands reach a cluster: the options they share, and the client made from them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from rota.client.errors import Unreachable

if TYPE_CHECKING:
    from rota.client.api.clients import Client

CONNECT_S = 3.0

Url = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL,…", help="One node of the cluster, or several. Default: $ROTA_URL, else 127.0.0.1:4100."
    ),
]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", help="The cluster's bearer token. Default: $ROTA_TOKEN_FILE.")
]
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", help="The cluster's signing keys. Default: $ROTA_KEY_FILE.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def client(url: str | None, token_file: Path | None, key_file: Path | None = None) -> Client:
    from rota.client.api.clients import Client  # late: `rota --help` need not load asyncio and aiohttp
    from rota.client.settings.config import client_config, load_token

    token = load_token(token_file) if token_file else None
    _somebody_there(client_config(url, token=token, key=key_file).urls)
    return Client(url, token=token, key=key_file)


def _somebody_there(urls: Sequence[str]) -> None:
    """A program's client waits for a node to come back; a person who mistyped an address should not."""
    faults = []
    for url in urls:
        parts = urlsplit(url)
        address = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        try:
            with socket.create_connection(address, timeout=CONNECT_S):
                return
        except OSError as error:
            faults.append(f"{url}: {error.strerror or error}")
    raise Unreachable(
        f"no node can be reached ({'; '.join(faults)}). Is one running there? `rota dev` starts one; --url or ROTA_URL "
        "says where nodes are."
    )
