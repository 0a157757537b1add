"""Payloads over the limit: they lie in an object store, and what is enqueued or returned is a claim check.

`ROTA_OFFLOAD` names a folder by its fsspec address (`s3://bucket/rota`, `file:///srv/rota`); whoever writes or reads
such payloads has it: clients and runners, never nodes. A claim check says an object's name, size and SHA-256 digest,
and is signed as any payload is: who can write to the object store can delete, and not change. Names begin with the
job's, so that a sweep can ask whether there still is such a job.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote, unquote

import msgspec
from msgspec import Meta

from ..errors import ConfigError, JobTooLarge, OffloadUnavailable
from ..ids import ALPHABET, SESSION_CHARS, Names, job_id
from ..model import UNREADABLE

VARIABLE = "ROTA_OFFLOAD"
PREFIX = b"\0rota-object\1"
BYTES_MAX = 1024 * 1024 * 1024
"""Of one payload, which is in memory as a whole at both ends."""

GRACE_S = 3_600.0
"""How old an object is at least that a sweep takes for a stray one: its job may be about to be stored."""

RESULT_S = 7 * 86_400.0
"""How long a result's object is kept at least: another job may have been given the claim check."""

active = bool(os.environ.get(VARIABLE))
"""Whether this process has an object store."""

_url = os.environ.get(VARIABLE, "")
_store: tuple[int, Any, str] | None = None      # of which process; its file system and folder
names = Names()
"""Of bundles whose job is named before it is enqueued, since its object bears its name."""


_NAME = re.compile(
    rf"([{ALPHABET}]{{{SESSION_CHARS}}}-[0-9a-f]{{8}})\.([0-9]{{1,3}})\.(arguments|result)\.[0-9a-f]{{16}}"
)


_MARK = "cluster."


class Check(msgspec.Struct, frozen=True, array_like=True):
    name: Annotated[str, Meta(pattern=r"^[0-9a-z.-]{1,100}\Z")]
    size: Annotated[int, Meta(ge=0, le=BYTES_MAX)]
    digest: Annotated[bytes, Meta(min_length=32, max_length=32)]


class Stray(NamedTuple):
    """An object, and the job that it belongs to. `at`: when it was put there, in seconds since 1970."""

    name: str
    job_id: str
    is_result: bool
    at: float


class Content(NamedTuple):
    """Of the folder: the clusters that say that it is theirs, and what bears the name of a job."""

    clusters: list[str]
    objects: list[Stray]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Check).decode


def use(url: str | None) -> None:
    """Put payloads over the limit there from now on; None: refuse them. In this process, and those forked off it."""
    global active, _url, _store
    active, _url, _store = bool(url), url or "", None


def stored(payload: bytes, bundle: str, index: int, what: str) -> bytes:
    """Put a payload there, as a job's `arguments` or its `result`; what is to travel in its place. Raises
    `JobTooLarge`, `OffloadUnavailable`."""
    if len(payload) > BYTES_MAX:
        raise JobTooLarge(len(payload), BYTES_MAX)
    name = f"{bundle}.{index}.{what}.{secrets.token_hex(8)}"
    fs, folder = _open()
    try:
        fs.makedirs(folder, exist_ok=True)
        fs.pipe_file(f"{folder}/{name}", payload)
    except Exception as error:
        raise _unavailable("written", error) from error
    return PREFIX + _encode(Check(name, len(payload), hashlib.sha256(payload).digest()))


def is_check(payload: bytes) -> bool:
    return payload.startswith(PREFIX)


def fetched(payload: bytes) -> bytes:
    """The payload that a claim check stands for; any other as it is. Raises `OffloadUnavailable`; `FileNotFoundError`
    or ValueError for an object that is gone, or another one."""
    if not is_check(payload):
        return payload
    try:
        check = _decode(payload[len(PREFIX):])
    except UNREADABLE as error:
        raise ValueError(f"a claim check cannot be read: {error}") from None
    fs, folder = _open()
    try:
        data = bytes(fs.cat_file(f"{folder}/{check.name}"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{check.name} is not in the object store any more") from None
    except Exception as error:
        raise _unavailable("read", error) from error
    if len(data) != check.size or not hmac.compare_digest(hashlib.sha256(data).digest(), check.digest):
        raise ValueError(f"{check.name} in the object store is not what was put there")
    return data


def content() -> Content:
    """What is there, listed once. Raises `OffloadUnavailable`."""
    fs, folder = _open()
    clusters, objects = [], []
    try:
        fs.invalidate_cache()       # of lists: without an end to it, in s3fs and others
        for one in fs.ls(folder, detail=True) if fs.exists(folder) else []:
            name = str(one["name"]).rpartition("/")[2]
            if name.startswith(_MARK):
                clusters.append(unquote(name.removeprefix(_MARK)))
            elif (of := _NAME.fullmatch(name)) is not None:
                at = fs.modified(one["name"]).timestamp()
                objects.append(Stray(name, job_id(of[1], int(of[2])), of[3] == "result", at))
    except Exception as error:
        raise _unavailable("listed", error) from error
    return Content(sorted(clusters), objects)


def mark(cluster: str) -> None:
    """Say that this folder is that cluster's. Raises `OffloadUnavailable`."""
    fs, folder = _open()
    try:
        if not fs.exists(name := f"{folder}/{_MARK}{quote(cluster, safe='')}"):
            fs.makedirs(folder, exist_ok=True)
            fs.pipe_file(name, b"its nodes delete objects of jobs that are over")
    except Exception as error:
        raise _unavailable("written", error) from error


def delete(name: str) -> None:
    """Raises `OffloadUnavailable`."""
    fs, folder = _open()
    try:
        fs.rm_file(f"{folder}/{name}")
    except FileNotFoundError:
        pass
    except Exception as error:
        raise _unavailable("deleted", error) from error


def _open() -> tuple[Any, str]:
    global _store
    if not active:
        raise OffloadUnavailable(
            "it lies in an object store, and this process knows none: give it the address (ROTA_OFFLOAD, rota node "
            "--offload URL)"
        )
    if _store is None or _store[0] != os.getpid():
        try:
            import fsspec
        except ImportError:
            raise ConfigError("an object store needs the package fsspec: pip install 'rota[offload]'") from None
        try:
            fs, folder = fsspec.core.url_to_fs(_url)
        except Exception as error:
            raise ConfigError(f"ROTA_OFFLOAD={_url!r:.200}: {error}") from None
        _store = (os.getpid(), fs, folder.rstrip("/"))
    return _store[1], _store[2]


def _unavailable(what: str, error: Exception) -> OffloadUnavailable:
    return OffloadUnavailable(f"an object could not be {what}: {type(error).__name__}: {error}"[:500])
