"""`rota init`: the signing key and the bearer token that nodes need as soon as they listen beyond loopback."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import Annotated

import typer

from rota.client.errors import ConfigError

KEY_FILE, TOKEN_FILE = "rota.key", "rota.token"


def init(
    directory: Annotated[Path, typer.Option(help="Where to put the two files.")] = Path(),
    keep: Annotated[bool, typer.Option("--keep", help="Leave files that exist as they are.")] = False,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Add a new signing key; old ones are still accepted.")
    ] = False,
    group: Annotated[
        bool, typer.Option("--group-readable", help="Mode 0640 instead of 0600, for containers with a group of ours.")
    ] = False,
) -> None:
    """Make a signing key and a bearer token.

    Every node and every client of a cluster needs both files; copy them as you
    would copy a password. The last key in the file signs, all are accepted: to
    replace a key, --rotate, copy the file everywhere, and delete the old line
    a day later.

    [bold]Example[/]

      rota init --directory /etc/rota
      rota node --key-file /etc/rota/rota.key --token-file /etc/rota/rota.token --http 0.0.0.0:4100 …
    """
    directory.mkdir(parents=True, exist_ok=True)
    key, token = directory / KEY_FILE, directory / TOKEN_FILE
    mode = 0o640 if group else 0o600
    present = [path for path in (key, token) if path.exists()]
    if rotate:
        _add_key(key)
    elif present and not keep:
        names = " and ".join(map(str, present))
        raise ConfigError(f"{names} already there: --rotate adds a key, --keep leaves it as it is")
    for path, line in ((key, _key_line()), (token, secrets.token_urlsafe(32))):
        if not path.exists():
            _write(path, line + "\n", mode)
    typer.echo(f"{key}\n{token}")


def _key_line() -> str:
    """The id of a key says when it was made."""
    return f"{time.strftime('%Y%m%d')}-{secrets.token_hex(2)}:{secrets.token_hex(32)}"


def _add_key(key: Path) -> None:
    if not key.exists():
        raise ConfigError(f"there is no {key} to add a key to: run `rota init` without --rotate")
    with key.open("a") as file:
        file.write(_key_line() + "\n")


def _write(path: Path, text: str, mode: int) -> None:
    """Never readable by others, not even for a moment."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
