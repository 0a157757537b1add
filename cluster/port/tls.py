"""The port's certificate, as it lies on disk: whoever renews it replaces the files, and the next connection gets it."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any, TypeAlias

from rota.client.errors import ConfigError

log = logging.getLogger(__name__)

_Stamp: TypeAlias = tuple[tuple[int, int, int], ...]


def serving(cert_file: str, key_file: str) -> ssl.SSLContext:
    """A context for a server that looks at the files again for each connection. While what lies there is no pair (half
    of it may have been written) the last one that was is served. Raises `ConfigError` if there is none at first."""
    certificate = _Certificate(Path(cert_file), Path(key_file))
    context = certificate.load()

    def choose(connection: Any, name: str | None, first: ssl.SSLContext) -> None:
        connection.context = certificate.newest()

    context.sni_callback = choose       # called also where the client names no host
    return context


class _Certificate:
    def __init__(self, cert_file: Path, key_file: Path) -> None:
        self._files = cert_file, key_file
        self._stamp: _Stamp = ()
        self._context: ssl.SSLContext | None = None

    def load(self) -> ssl.SSLContext:
        self._stamp = self._look()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(*self._files)
        except (OSError, ValueError) as error:      # (an SSLError is an OSError)
            raise ConfigError(f"--http-cert {self._files[0]}, --http-key {self._files[1]}: {error}") from None
        self._context = context
        return context

    def newest(self) -> ssl.SSLContext:
        assert self._context is not None
        if self._look() != self._stamp:
            try:
                self.load()
                log.info("the port's certificate was renewed: %s", self._files[0])
            except ConfigError as error:
                log.warning("the port goes on with the certificate that it has: %s", error)
        return self._context

    def _look(self) -> _Stamp:
        found = []
        for path in self._files:
            try:
                status = path.stat()
            except OSError:
                continue
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(found)
