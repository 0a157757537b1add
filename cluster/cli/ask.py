"""How commands reach a cluster: the options they share, and the client made from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rota.client.api import Client

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
    from rota.client.api import Client  # late: `rota --help` need not load asyncio and aiohttp
    from rota.client.config import load_token

    return Client(url, token=load_token(token_file) if token_file else None, key=key_file)
