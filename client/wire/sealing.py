"""Sealed arguments and results: encrypted by who writes them, opened by who is to have them, and by nobody between.

A process that was given a ring of encryption keys (`ROTA_ENCRYPT`, or `rota.encrypt`) seals what it enqueues, and a
runner with one seals results and steps. Nodes and etcd see bytes; they hold no such key. What is sealed lies in a
payload as `PREFIX | length of the key's id | id | nonce | AES-256-GCM`; the signature is over that, as over any
payload.
"""

from __future__ import annotations

import os
from os import PathLike

from ..errors import ConfigError, KeyMissing
from .keyring import Keyring

VARIABLE = "ROTA_ENCRYPT"
PREFIX = b"\0rota-sealed\1"
PLAIN_FROM = b"\1"
"""A payload that is less is sealed or lies in the object store: no pickle and no JSON begins with a zero. Every job is
held against it, and a comparison makes nothing."""

NONCE_BYTES = 12
OVERHEAD_BYTES_MAX = len(PREFIX) + 1 + 32 + NONCE_BYTES + 16
ARGUMENTS, RESULT = b"rota arguments", b"rota result"
"""What stands in one's place does not open in the other's."""


class Ring:
    """Keys by id, newest last: the newest seals, all open. Raises `ConfigError` where there is no AES-GCM."""

    def __init__(self, keys: Keyring) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise ConfigError("encryption needs the package cryptography: pip install 'rota[encrypt]'") from None
        self.newest = keys.newest
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.derived(b"rota-encrypt").items()}

    @property
    def ids(self) -> list[str]:
        return list(self._ciphers)

    def seal(self, data: bytes, purpose: bytes) -> bytes:
        nonce, key_id = os.urandom(NONCE_BYTES), self.newest.encode()
        return b"".join((
            PREFIX, bytes([len(key_id)]), key_id, nonce, self._ciphers[self.newest].encrypt(nonce, data, purpose)
        ))

    def open(self, data: bytes, purpose: bytes) -> bytes:
        """Raises `KeyMissing`."""
        from cryptography.exceptions import InvalidTag

        key_id = key_of(data)
        start = len(PREFIX) + 1 + len(key_id.encode())
        if key_id not in self._ciphers:
            raise KeyMissing(f"sealed with encryption key {key_id!r:.40}; known here: {', '.join(self._ciphers)}",
            key_id)
        nonce, sealed = data[start : start + NONCE_BYTES], data[start + NONCE_BYTES :]
        try:
            return self._ciphers[key_id].decrypt(nonce, sealed, purpose)
        except (InvalidTag, ValueError):
            raise KeyMissing(
                f"sealed with an encryption key that has the id {key_id!r:.40}, as one here, and is another", key_id
            ) from None


active = bool(os.environ.get(VARIABLE))
"""Whether this process seals what it writes. Read before anything else is called, so that it costs nothing."""

_ring: Ring | None = None


def use(keys: Keyring | str | PathLike[str] | None) -> None:
    """Seal with these keys from now on, or (None) seal nothing. In this process and those forked off it.

    Raises:
        ConfigError: the file cannot be used, or `cryptography` is missing.
    """
    global active, _ring
    if keys is None:
        active, _ring = False, None
    else:
        _ring = Ring(keys if isinstance(keys, Keyring) else Keyring.load(keys))
        active = True


def sealed(payload: bytes, purpose: bytes) -> bytes:
    """For who is `active`. Raises `ConfigError`."""
    ring = _its_ring()
    assert ring is not None
    return ring.seal(payload, purpose)


def opened(payload: bytes, purpose: bytes) -> bytes:
    """What was sealed, or the payload itself. Raises `KeyMissing`, `ConfigError`."""
    if not is_sealed(payload):
        return payload
    ring = _its_ring()
    if ring is None:
        key_id = key_of(payload)
        raise KeyMissing(
            f"sealed with encryption key {key_id!r:.40}, and this process has none: give it the cluster's encryption "
            "keys (ROTA_ENCRYPT, rota node --encrypt FILE)", key_id,
        )
    return ring.open(payload, purpose)


def is_sealed(payload: bytes) -> bool:
    return payload.startswith(PREFIX)


def key_of(payload: bytes) -> str:
    """The id of the key that it was sealed with."""
    at = len(PREFIX)
    return payload[at + 1 : at + 1 + payload[at]].decode("ascii", "backslashreplace") if len(payload) > at else ""


def check() -> None:
    """Raise `ConfigError` if this process is to have a ring and cannot."""
    _its_ring()


def _its_ring() -> Ring | None:
    global _ring
    if _ring is None and active:
        _ring = Ring(Keyring.load(os.environ[VARIABLE]))
    return _ring
