"""Asking a cluster through the HTTP port of any of its nodes."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec
import typer

from rota.client.errors import JobUnknown, ProtocolMismatch, RotaError, Unauthorized, Unreachable

from .secrets import read_token

T = TypeVar("T")

URL_DEFAULT = "http://127.0.0.1:4100"
TIMEOUT_S = 10.0

Url = Annotated[
    str,
    typer.Option("--url", envvar="ROTA_URL", help="One node of the cluster, or several, separated by commas."),
]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", envvar="ROTA_TOKEN_FILE", help="The cluster's bearer token.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def ask(urls: str, token_file: Path | None, path: str, kind: type[T]) -> T:
    """GET `path` from the first node that answers. Raises `Unreachable` if none does."""
    headers = {"Authorization": f"Bearer {read_token(token_file)}"} if token_file else {}
    faults = []
    for url in filter(None, (part.strip().rstrip("/") for part in urls.split(","))):
        try:
            with urllib.request.urlopen(_request(url + path, headers), timeout=TIMEOUT_S) as answer:
                return msgspec.json.decode(answer.read(), type=kind)
        except urllib.error.HTTPError as error:
            if error.code < 500:
                _refused(error, url)
            faults.append(f"{url} answered {error.code}: {_said(error)}")
        except (OSError, http.client.HTTPException) as error:
            faults.append(f"{url}: {getattr(error, 'reason', None) or error}")
        except msgspec.DecodeError as error:
            raise ProtocolMismatch(f"{url} answers, but not as a node of rota does: {error}") from error
    raise Unreachable(
        "no node answered: " + "; ".join(faults) + ". Is a node running there? `rota dev` starts one; "
        "--url or ROTA_URL says where nodes are."
    )


def _request(url: str, headers: dict[str, str]) -> urllib.request.Request:
    if not url.startswith(("http://", "https://")):
        url = f"http://{url}"
    return urllib.request.Request(url, headers=headers)


def _refused(error: urllib.error.HTTPError, url: str) -> NoReturn:
    said = _said(error)
    if error.code == 401:
        raise Unauthorized(f"{url} refuses the token: {said}. Give the cluster's with --token-file (ROTA_TOKEN_FILE)")
    if error.code == 404:
        raise JobUnknown(said)
    raise RotaError(f"{url} answered {error.code}: {said}")


def _said(error: urllib.error.HTTPError) -> str:
    """The node's own words, which come as {"error": …}."""
    text = error.read().decode(errors="replace")
    try:
        body: Any = json.loads(text)
        return str(body["error"])
    except (ValueError, KeyError, TypeError):
        return text[:200] or error.reason
