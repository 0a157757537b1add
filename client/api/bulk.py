"""Many jobs of one call, cut into bundles and frames. Costs no future a job: a bundle is acknowledged as a whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

from ..calls.handle import JobHandle
from ..calls.order import EMPTY, Call, Route, Routed, offloaded, with_upstream
from ..calls.pickling import dump_arguments
from ..errors import InvalidJob, RotaError
from ..ids import Names
from ..model import BUNDLE_BYTES_MAX, JOBS_PER_BUNDLE, Codec, Enqueue
from ..wire import sealing
from ..wire.frames import CLIENT_FRAME_BYTES
from ..wire.keyring import Seal
from .coalesce import OpenBundle

BUNDLES_PER_FRAME = 16
Calls = Iterable[Call | tuple[Any, ...]]


class Pause(Enum):
    """Among calls, and handed on among frames: whoever makes them may do something else now."""

    PAUSE = "pause"


PAUSE: Final = Pause.PAUSE
Paused: TypeAlias = Literal[Pause.PAUSE]


def frames(
    task: Routed, route: Route, calls: Iterator[Call | tuple[Any, ...] | Paused], seal: Seal, names: Names,
    jobs_per_bundle: Callable[[], int] = lambda: JOBS_PER_BUNDLE,
    wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[list[Enqueue] | Paused]:
    """A frame's worth of signed bundles at a time. An error names the call that it is about. What is to run at a given
    time is not delayed by how long it takes to make the bundles before it."""
    frame: list[Enqueue] = []
    frame_bytes = 0
    began = monotonic()
    for bundle in _bundles(task, route, calls, jobs_per_bundle):
        if bundle is PAUSE:
            yield bundle
            continue
        frame.append(bundle.close(names.next(), seal, wall(), 0.0 if task.run_at is None else monotonic() - began))
        frame_bytes += bundle.bytes
        if len(frame) >= BUNDLES_PER_FRAME or frame_bytes > CLIENT_FRAME_BYTES - BUNDLE_BYTES_MAX:
            yield frame
            frame, frame_bytes = [], 0
    if frame:
        yield frame


def _bundles(
    task: Routed, route: Route, calls: Iterator[Call | tuple[Any, ...] | Paused], jobs_per_bundle: Callable[[], int]
) -> Iterator[OpenBundle | Paused]:
    """The hot loop of bulk enqueues: what does not differ from call to call is kept out of it."""
    bundle = OpenBundle(route, 0.0)
    checked: set[int] = set()           # numbers of positional arguments that the task takes
    number, keyed, unique, is_bare, plain_route = 0, task.keyed, task.is_unique, task.is_bare, route
    marks = task.marks
    headers: Mapping[str, str] | None = None
    met: list[JobHandle[Any]] = []
    name = "" if route.function else task.name
    kwargs: Mapping[str, Any]
    try:
        for call in calls:
            number += 1
            if type(call) is tuple:
                args, kwargs = call, EMPTY
            elif call is PAUSE:
                number -= 1
                yield PAUSE
                continue
            else:
                args, kwargs = arguments_of(call)
            if kwargs or len(args) not in checked:
                task.check(args, kwargs)
                if not kwargs:
                    checked.add(len(args))
            if not is_bare:
                args, kwargs, headers, wanted = task.dress(args, kwargs, plain_route)
                if (wanted.queue, wanted.priority) != (route.queue, route.priority):
                    if bundle.payloads:     # jobs of one bundle have one place
                        yield bundle
                    route = route._replace(queue=wanted.queue, priority=wanted.priority)
                    bundle = OpenBundle(route, 0.0)
            if keyed and (key := task.key_of(args, kwargs)) != route.key:
                if bundle.payloads:         # jobs of one bundle have one key
                    yield bundle
                route = route._replace(key=key)
                bundle = OpenBundle(route, 0.0)
            if unique:
                if bundle.payloads:         # each has a key of its own
                    yield bundle
                route = task.with_unique(route, args, kwargs)
                bundle = OpenBundle(route, 0.0)
            if marks and (marked := task.with_marks(route, args, kwargs)) != route:
                if bundle.payloads:
                    yield bundle
                route = marked
                bundle = OpenBundle(route, 0.0)
            payload, codec = dump_arguments(args, kwargs, name, headers, met)
            if sealing.active:
                payload = sealing.sealed(payload, sealing.ARGUMENTS)
            if met:                         # what it waits for, it waits for alone
                if bundle.payloads:
                    yield bundle
                yield _alone(with_upstream(route, met), payload, codec)
                met.clear()
                bundle = OpenBundle(route, 0.0)
                continue
            size = len(payload)
            if bundle.bytes + size > BUNDLE_BYTES_MAX or len(bundle.payloads) == bundle.jobs_max:
                if bundle.payloads:
                    yield bundle
                bundle = OpenBundle(route, 0.0, number, jobs_per_bundle())
                if size > BUNDLE_BYTES_MAX:
                    yield _alone(route, payload, codec)
                    continue
            bundle.payloads.append(payload)
            bundle.bytes += size
            if codec != "pickle":
                bundle.codec = codec
    except RotaError as error:
        error.add_note(f"call {number:,} of enqueue_many")
        raise
    if bundle.payloads:
        yield bundle


def _alone(route: Route, payload: bytes, codec: Codec) -> OpenBundle:
    if len(payload) > BUNDLE_BYTES_MAX:
        route, payload = offloaded(route, payload)
    bundle = OpenBundle(route, 0.0)
    bundle.add(payload, codec)
    return bundle


def arguments_of(call: Call | tuple[Any, ...]) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Of one call that is no plain tuple. Raises `InvalidJob`."""
    if isinstance(call, Call):
        return call
    raise InvalidJob(f"{call!r:.80} is not a call: give tuples of arguments, (x,) for a single one, or task.call(...)")
