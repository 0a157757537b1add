"""Calls in JSON, from any language: a task by its name and its arguments, checked, and made a signed body."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from rota.client.calls.signature import check_call
from rota.client.errors import InvalidJob, JobTooLarge, UnknownTask
from rota.client.ids import normal
from rota.client.model import BUNDLE_BYTES_MAX, HEADER_SCHEMA, NO_OPTIONS, Header, Options
from rota.client.options.checks import queue_name
from rota.client.options.headers import checked
from rota.client.wire.codec import encode_body
from rota.client.wire.keyring import Keyring

from .service import NodeService
from .websocket import as_mode

_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_table = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class JsonCall(msgspec.Struct, kw_only=True):
    """Arguments stay as they were written: a decoder would round their numbers."""

    task: str
    args: msgspec.Raw = msgspec.Raw(b"[]")
    kwargs: msgspec.Raw = msgspec.Raw(b"{}")
    queue: str = "default"
    headers: dict[str, str] = {}


class Calls:
    """Of one node. `service` knows the tasks, `keyring` signs."""

    def __init__(self, service: NodeService, keyring: Keyring, wall: Callable[[], float] = time.time) -> None:
        self._service = service
        self._keyring = keyring
        self._wall = wall

    async def header(
        self, bundle: str, call: JsonCall, options: Options = NO_OPTIONS, *, priority: int = 0,
        key: str = "", delay_s: float = 0.0, flow: str = "",
    ) -> tuple[Header, bytes]:
        """The head of a bundle of this one call, and its payload. Raises `InvalidJob`, `UnknownTask`, `JobTooLarge`."""
        task, queue = normal(call.task), queue_name(call.queue)
        if bytes(call.args)[:1] != b"[" or bytes(call.kwargs)[:1] != b"{":
            raise InvalidJob("args is an array, kwargs an object")
        mode = as_mode(await self._service.task_mode(task))
        if mode is None:
            raise UnknownTask(f"no node has ever registered {task!r:.200}")
        names: dict[str, Any] = _decode_table(call.kwargs)
        check_call(task, await self._service.parameters(task), len(_decode_list(call.args)), names)
        payload = b'{"args":%b,"kwargs":%b}' % (bytes(call.args), bytes(call.kwargs))
        if call.headers:
            payload = b'%b,"headers":%b}' % (payload[:-1], msgspec.json.encode(checked(call.headers)))
        if len(payload) > BUNDLE_BYTES_MAX:
            raise JobTooLarge(len(payload), BUNDLE_BYTES_MAX)
        return Header(
            bundle=bundle, task=task, queue=queue, mode=mode, indexes=[0], sizes=[len(payload)],
            enqueued_at=self._wall(), codec="json", options=options,
            v=HEADER_SCHEMA, priority=priority, key=key, delay_s=delay_s, flow=flow,
        ), payload

    def body(self, header: Header, payload: bytes) -> bytes:
        return encode_body(self._keyring.sign(header, [payload], self._service.cluster), [payload])
