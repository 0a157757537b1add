"""`rota init`: the signing key and the bearer token that nodes need as soon as they listen beyond loopback."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from rota.client.errors import ConfigError
from rota.client.settings.local import key_line

from ...terminal import say
from ..ask import TokenFile, Url

KEY_FILE, TOKEN_FILE, ENCRYPTION_FILE = "rota.key", "rota.token", "rota.encryption"


def token(url: Url = None, token_file: TokenFile = None) -> None:
    """Print the bearer token for a node, for curl and other programs.

    That of ROTA_TOKEN_FILE or --token-file; where neither is given, the one that a node on this machine has published
    for its own user.

    [bold]Example[/]

      curl -H "Authorization: Bearer $(rota token)" http://127.0.0.1:4100/v1/queues
    """
    from rota.client.settings.config import client_config, load_token

    given = load_token(token_file) if token_file else None
    config = client_config(url, token=given)
    own = config.local.secrets(config.urls[0]) if config.local is not None else None
    found = config.token or (own.token if own is not None else None)
    if found is None:
        raise ConfigError(
            f"there is no token for {config.urls[0]}: no node of this user on this machine has published one, and "
            "neither --token-file nor ROTA_TOKEN_FILE is given"
        )
    say(found)


def init(
    directory: Annotated[Path, typer.Option(help="Where to put the two files.")] = Path(),
    encryption: Annotated[
        bool, typer.Option("--encryption", help="Also make an encryption key, rota.encryption (docs/encryption.md).")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave files that exist as they are.")] = False,
    add_key: Annotated[
        bool, typer.Option("--add-key", help="Add a new signing key, which is accepted but does not sign yet.")
    ] = False,
    use_key: Annotated[bool, typer.Option("--use-key", help="From now on sign with the key added last.")] = False,
    group: Annotated[
        bool, typer.Option("--group-readable", help="Mode 0640 instead of 0600: a group (of containers) can read them.")
    ] = False,
) -> None:
    """Make a signing key and a bearer token.

    Every node and every client of a cluster needs both files; copy them as you
    would copy a password. All keys in the file are accepted, the last one signs.
    To replace a key without a stop: --add-key, copy the file everywhere and
    restart; --use-key, the same again; and when no job of that time is left,
    delete the old line.

    [bold]Example[/]

      rota init --directory /etc/rota
      rota node --key-file /etc/rota/rota.key --token-file /etc/rota/rota.token --http 0.0.0.0:4100 …
    """
    directory.mkdir(parents=True, exist_ok=True)
    key, token = directory / KEY_FILE, directory / TOKEN_FILE
    mode = 0o640 if group else 0o600
    present = [path for path in (key, token) if path.exists()]
    if add_key or use_key:
        _rewrite(key, _with_new_key if add_key else _with_first_last)
    elif present and not keep:
        names = " and ".join(map(str, present))
        raise ConfigError(f"{names} already there: --add-key adds a key, --keep leaves all as it is")
    for path, line in ((key, key_line()), (token, secrets.token_urlsafe(32))):
        if not path.exists():
            _write(path, line + "\n", mode)
    if encryption:
        if not (own := directory / ENCRYPTION_FILE).exists():
            _write(own, key_line() + "\n", mode)
        say(str(own))
    say(f"{key}\n{token}", lines=True)


def _with_new_key(lines: list[str]) -> list[str]:
    return [key_line(), *lines]


def _with_first_last(lines: list[str]) -> list[str]:
    return [*lines[1:], *lines[:1]]


def _rewrite(key: Path, change: Callable[[list[str]], list[str]]) -> None:
    """In place: the file keeps its owner and mode."""
    if not key.exists():
        raise ConfigError(f"there is no {key} yet: run `rota init` first")
    lines = [line for line in key.read_text().splitlines() if line.strip()]
    with key.open("r+") as file:
        file.write("".join(f"{line}\n" for line in change(lines)))
        file.truncate()


def _write(path: Path, text: str, mode: int) -> None:
    """Never readable by others, not even for a moment."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
