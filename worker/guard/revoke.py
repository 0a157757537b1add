"""Just enough of etcd's JSON gateway to revoke a lease, with nothing but the standard library."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

REVOKE_S = 3.0
BY_GRPC_S = 8.0
"""How long another process may take for it; it has to import gRPC first."""


class Etcd:
    """Where a lease can be revoked, as the node has said."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._endpoints: list[str] = request["endpoints"]
        self._user: str = request.get("user") or ""
        self._password_file: str = request.get("password_file") or ""
        self._token: str = request.get("token") or ""
        self._ca: str | None = request.get("ca") or None
        self._cert: str = request.get("cert") or ""
        self._key: str | None = request.get("key") or None
        self._by_grpc: list[str] = request.get("by_grpc") or []
        self._request = request

    def revoke(self, lease: str) -> str:
        """Tell each endpoint in turn until one has done it. Returns what to say; never raises."""
        problem, end = "no endpoint", time.monotonic() + REVOKE_S
        for endpoint in self._endpoints:
            if time.monotonic() > end:
                break
            try:
                status, answer = self._revoke_at(endpoint, lease)
            except Exception as error:      # whatever: the lease runs out by itself
                problem = f"{endpoint}: {error}"
                continue
            if status == 200:
                return f"lease {lease} is revoked: its work is free"
            if status == 404 and "lease" in answer:
                return f"lease {lease} had already run out"
            if status in (404, 501) and self._by_grpc:
                return self._revoke_by_grpc(lease, endpoint)
            problem = f"{endpoint}: {status} {answer[:200]!r}"
        return f"lease {lease} could not be revoked ({problem}); it runs out by itself"

    def _revoke_by_grpc(self, lease: str, endpoint: str) -> str:
        """The JSON gateway of this etcd is off. Its other door needs more than the standard library: a process of its
        own goes there."""
        request = json.dumps(self._request | {"lease": lease}).encode()
        try:
            done = subprocess.run(self._by_grpc, input=request, capture_output=True, timeout=BY_GRPC_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
        else:
            if done.returncode == 0:
                return f"lease {lease} is revoked, over gRPC (etcd's JSON gateway is off): its work is free"
            problem = done.stderr.decode("utf-8", "replace").strip()[-200:]
        return (
            f"lease {lease} could not be revoked: {endpoint} has no JSON gateway, and over gRPC {problem!r}; "
            "it runs out by itself"
        )

    def _revoke_at(self, endpoint: str, lease: str) -> tuple[int, str]:
        body = {"ID": str(int(lease, 16))}
        status, answer = self._post(endpoint, "/v3/lease/revoke", body, self._token)
        if self._user and status in (400, 401, 403):    # the token has run out, or there was none
            status, answer = self._post(
                endpoint, "/v3/auth/authenticate", {"name": self._user, "password": self._password()}, ""
            )
            if status == 200:
                self._token = json.loads(answer)["token"]
                status, answer = self._post(endpoint, "/v3/lease/revoke", body, self._token)
        return status, answer

    def _password(self) -> str:
        """Read anew each time: it is changed while we wait."""
        return Path(self._password_file).read_text().strip() if self._password_file else ""

    def _post(self, endpoint: str, path: str, body: dict[str, str], token: str) -> tuple[int, str]:
        scheme, _, address = endpoint.rpartition("://")
        timeout_s = REVOKE_S / 2
        connection: http.client.HTTPConnection
        if scheme == "unix":
            connection = SocketConnection(address, timeout_s)
        elif scheme == "https":
            connection = http.client.HTTPSConnection(address, timeout=timeout_s, context=self._tls())
        else:
            connection = http.client.HTTPConnection(address, timeout=timeout_s)
        try:
            headers = {"Content-Type": "application/json"} | ({"Authorization": token} if token else {})
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read(10_000).decode("utf-8", "replace")
        finally:
            connection.close()

    def _tls(self) -> ssl.SSLContext:
        """Made anew each time: certificates are renewed while we wait."""
        context = ssl.create_default_context(cafile=self._ca)
        if self._cert:
            context.load_cert_chain(self._cert, self._key)
        return context


class SocketConnection(http.client.HTTPConnection):
    """HTTP over a socket of the file system."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
