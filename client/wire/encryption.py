"""`rota.encrypt`: sealed arguments and results, said by a program."""

from __future__ import annotations

from os import PathLike

from . import sealing


def encrypt(key_file: str | PathLike[str] | None) -> None:
    """Seal what this process enqueues, and open what others have sealed, with the keys in this file (as `rota init
    --encryption` makes one: the last one seals, all open). None: seal nothing from now on. `ROTA_ENCRYPT` says the same
    from the start.

    Raises:
        ConfigError: the file cannot be used, or the package cryptography is missing (`pip install 'rota[encrypt]'`).
    """
    sealing.use(key_file)
