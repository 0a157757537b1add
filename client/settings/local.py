"""Keys without ado, for one user on one machine: what a node that was given none makes for itself, and where clients of
the same user find it.

A node that listens on loopback, on an etcd of this machine, signs and asks for a token as any other does. Key and token
are published for the port it listens on, in a folder that is closed to everybody else: `<port>.key` and `<port>.token`.
A client that was given neither looks there. (A token for each port, made anew at each start: who takes a port while no
node is there, and waits for a client to send it a token, learns nothing that is of use elsewhere.)
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import stat
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..wire.keyring import Keyring
from .hosts import is_loopback

FOLDER = "rota"
RUN_USER = "/run/user"


class Secrets(NamedTuple):
    keyring: Keyring
    token: str


class Local:
    """The folder of one user. Nothing is read or made before it is asked for."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._candidates = _candidates(environ)

    # -- for a node

    def key_file(self) -> Path:
        """The key that nodes of this user share, made if there is none. Raises `ConfigError` where no folder is fit."""
        path = self._folder() / "local.key"
        with contextlib.suppress(FileExistsError):
            write_secret(path, key_line() + "\n")
        return path

    def publish(self, port: int, keys: str, token: str) -> None:
        """For clients of a node that listens on this port. `keys`: what a key file holds."""
        folder = self._folder()
        _replace(folder / f"{port}.key", keys)
        _replace(folder / f"{port}.token", token + "\n")

    def withdraw(self, port: int, token: str | None = None) -> None:
        """The port is not that of such a node any more (`token`: unless another has taken it over)."""
        for folder in self._candidates:
            path = folder / f"{port}.token"
            with contextlib.suppress(OSError):
                if token is None or path.read_text().strip() == token:
                    path.unlink()
                    (folder / f"{port}.key").unlink()

    def _folder(self) -> Path:
        faults = []
        for folder in self._candidates:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                faults.append(f"{folder}: {error.strerror}")
                continue
            fault = _fault_of(folder)
            if not fault:
                return folder
            faults.append(f"{folder}: {fault}")
        raise ConfigError(
            "there is no private folder for a signing key "
            f"({'; '.join(faults)}): set XDG_RUNTIME_DIR, or make a key with `rota init` and give it as --key-file"
        )

    # -- for a client

    def secrets(self, url: str) -> Secrets | None:
        """Of the node at this address, if it is on this machine and has published them."""
        parts = urlsplit(url)
        if not is_loopback(parts.hostname or "") or parts.port is None:
            return None
        for folder in self._candidates:
            try:
                if not _fault_of(folder):
                    token = (folder / f"{parts.port}.token").read_text("ascii").strip()
                    return Secrets(Keyring.load(folder / f"{parts.port}.key"), token)
            except (OSError, UnicodeDecodeError, ConfigError):
                continue
        return None


def key_line() -> str:
    """A line of a key file. The id of a key says when it was made."""
    return f"{time.strftime('%Y%m%d')}-{secrets.token_hex(2)}:{secrets.token_hex(32)}"


def _candidates(environ: Mapping[str, str]) -> list[Path]:
    """From the best to the last. Not everything that a user starts has the same environment: readers try them all."""
    user = os.geteuid()
    roots = [environ.get("XDG_RUNTIME_DIR"), f"{RUN_USER}/{user}", environ.get("XDG_STATE_HOME")]
    with contextlib.suppress(KeyError):
        roots.append(f"{environ.get('HOME') or pwd.getpwuid(user).pw_dir}/.local/state")
    folders = [Path(root) / FOLDER for root in roots if root and Path(root).is_dir()]
    return list(dict.fromkeys([*folders, Path(tempfile.gettempdir()) / f"{FOLDER}-{user}"]))


def _fault_of(folder: Path) -> str:
    """Why a folder is not private, or "". Raises `OSError` if there is none."""
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode):
        return "it is not a folder"
    if facts.st_uid != os.geteuid():
        return "it belongs to somebody else"
    return "others can look into it: chmod 700 it" if stat.S_IMODE(facts.st_mode) & 0o077 else ""


def _replace(path: Path, text: str) -> None:
    """At once: a reader finds the old or the new."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    write_secret(draft, text)
    draft.rename(path)


def write_secret(path: Path, text: str) -> None:
    """Never readable by others, not even for a moment. Raises `FileExistsError`, and is never seen half."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    try:
        os.link(draft, path)
    finally:
        draft.unlink()
