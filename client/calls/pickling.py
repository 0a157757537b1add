"""Arguments, results and code as bytes: pickle, cloudpickle for what pickle cannot, JSON on request.

What arrives is what was sent, or it is not sent: of an open file cloudpickle would make another file, of a class of the
module that was started another class (see `script.py`).

This is the one module outside the runner that unpickles, and only what a signature covers (or, on loopback without a
key, what an unsigned node of this machine sent).
"""

from __future__ import annotations

import functools
import io
import json
import pickle
import sys
from collections.abc import Callable, Mapping
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType
from typing import Any

from .. import upstream
from ..errors import InvalidJob, KeyMissing, NotSerializable, OffloadUnavailable, ResultInvalid
from ..model import Codec
from ..wire import offload, sealing
from . import script
from .handle import JobHandle
from .models import as_json

_UNDERSCORE = ord("_")
"""Looking for one byte is several times cheaper than looking for a word, and most small payloads have none."""

_HERE = b"main__"
"""Probably an instance of a class of the module that was started: pickle would name it as it is called here only."""

_NO_FILE = (io.StringIO, io.BytesIO)
"""What has the methods of a file, and all of its contents in memory."""

DEFAULT_ADVICE = "Pass what it is made from (a path, an id, an address) and open it in the job."


def dump_arguments(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], task: str = "", headers: Mapping[str, str] | None = None,
    met: list[JobHandle[Any]] | None = None,
) -> tuple[bytes, Codec]:
    """Serialize a call's arguments, and its headers if it has some: pickle, or cloudpickle where pickle refuses. `task`
    is the name of the task, "" if its code travels along. `met` gets the handles that stand for results; None: there
    can be none. Raises `NotSerializable`, `InvalidJob`."""
    call: tuple[Any, ...] = (args, kwargs, dict(headers)) if headers else (args, kwargs)
    try:
        return _dump_call(call, task)
    except upstream.HandleMet as error:
        if met is None:
            raise InvalidJob(f"nothing waits for other jobs here: {error}") from None
    with upstream.collecting() as found:
        dumped = _dump_call(call, task)
    met += found
    return dumped


def _dump_call(call: tuple[Any, ...], task: str) -> tuple[bytes, Codec]:
    try:
        payload = pickle.dumps(call, 5)
        if _UNDERSCORE not in payload or _HERE not in payload:
            return payload, "pickle"
    except upstream.HandleMet:
        raise
    except Exception:       # anything: user code runs here (__reduce__, __getstate__)
        pass
    try:
        return _dump_with_care(call, task)
    except upstream.HandleMet:
        raise
    except Exception as error:
        raise NotSerializable(_blame(call[0], call[1], error)) from error


def load_arguments(codec: Codec, payload: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """For the runner: a verified payload's arguments. Raises whatever user code raises."""
    args, kwargs, *_ = load_call(codec, payload)
    return args, kwargs


def load_call(codec: Codec, payload: bytes) -> tuple[Any, ...]:
    """Arguments, those by name and, if it has some, headers: two things or three. Raises whatever user code raises, or
    `KeyMissing`."""
    if payload < sealing.PLAIN_FROM:
        payload = bare(payload, sealing.ARGUMENTS)
    if codec == "json":
        call = json.loads(payload)
        found = (tuple(call.get("args", ())), call.get("kwargs", {}))
        return (*found, call["headers"]) if call.get("headers") else found
    loaded: tuple[Any, ...] = _load(payload)
    return loaded


def dump_value(value: object, codec: Codec = "pickle") -> tuple[bytes, Codec]:
    """For the runner: a job's result. JSON jobs answer in JSON, others as arguments travel."""
    try:
        if codec == "json":
            return json.dumps(value, allow_nan=False, default=as_json).encode(), "json"
        payload = pickle.dumps(value, 5)
        if _UNDERSCORE not in payload or _HERE not in payload:
            return (sealing.sealed(payload, sealing.RESULT) if sealing.active else payload), "pickle"
    except Exception as error:
        if codec == "json":
            raise NotSerializable(f"the result, a {_type_name(value)}, is not JSON: {error}") from error
    try:
        payload, dumped = _dump_with_care(value, "")
    except Exception as error:
        raise NotSerializable(f"the result, a {_type_name(value)}, cannot be pickled: {error}") from error
    return (sealing.sealed(payload, sealing.RESULT) if sealing.active else payload), dumped


def bare(payload: bytes, purpose: bytes) -> bytes:
    """A payload out of the object store, and unsealed. Raises `KeyMissing`, `OffloadUnavailable`, `FileNotFoundError`,
    ValueError."""
    return sealing.opened(offload.fetched(payload), purpose)


def load_value(codec: Codec, payload: bytes) -> Any:
    """A verified result. Raises `ResultInvalid` if it cannot be rebuilt here, `KeyMissing`, `OffloadUnavailable`."""
    try:
        if payload < sealing.PLAIN_FROM:
            payload = bare(payload, sealing.RESULT)
        if codec == "json":
            return json.loads(payload)
        return _load(payload)
    except (KeyMissing, OffloadUnavailable):
        raise
    except Exception as error:
        raise ResultInvalid(f"the result cannot be rebuilt here: {type(error).__name__}: {error}") from error


def dump_function(function: Callable[..., Any], advice: str = "") -> bytes:
    """A function's code by value. Raises `NotSerializable`, which ends with the advice."""
    try:
        return _cloudpickle(function, script.name_where_runs(""))
    except Exception as error:
        name = getattr(function, "__qualname__", repr(function))
        raise NotSerializable(
            f"the function {name} cannot be shipped by value: {type(error).__name__}: {error}. What it closes over "
            "must be picklable; or let the nodes import it. " + advice
        ) from error


def load_function(code: bytes) -> Callable[..., Any]:
    """For the runner: verified code."""
    function: Callable[..., Any] = pickle.loads(code)   # noqa: S301 - the node has verified the signature
    return function


def _load(payload: bytes) -> Any:
    if script.NAMES_SOMETHING in payload and script.could_be(payload):
        return _Unpickler(io.BytesIO(payload)).load()
    return pickle.loads(payload)            # noqa: S301 - whoever calls this has verified the signature


class _Unpickler(pickle.Unpickler):
    """Finds what belongs to the module that this process was started with in that, and not in a second copy of it."""

    def find_class(self, module: str, name: str) -> Any:
        found = script.find(module, name)
        return found if found is not None else super().find_class(module, name)


def _dump_with_care(value: object, task: str) -> tuple[bytes, Codec]:
    """By reference where the other end knows it, by value where it does not."""
    name = script.name_where_runs(task)
    if name:
        try:
            return _by_reference(value, name), "pickle"
        except Exception:       # pickle refuses: a lambda, …
            pass
    return _cloudpickle(value, name), "cloudpickle"


class _ByReference(pickle.Pickler):
    """`name`: what the module that was started is called where this goes."""

    def __init__(self, buffer: io.BytesIO, name: str) -> None:
        super().__init__(buffer, 5)
        self._name = name

    def reducer_override(self, found: Any) -> Any:
        return _reduced(found, self._name)


def _by_reference(value: object, name: str) -> bytes:
    buffer = io.BytesIO()
    _ByReference(buffer, name).dump(value)
    return buffer.getvalue()


def _cloudpickle(value: object, name: str = "") -> bytes:
    import cloudpickle  # here: most producers never need it

    spawned = sys.modules.get("__mp_main__")
    if spawned is not None and not name:        # as it does with __main__ by itself
        cloudpickle.register_pickle_by_value(spawned)

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, found: Any) -> Any:
            reduced = _reduced(found, name)
            return super().reducer_override(found) if reduced is NotImplemented else reduced

    buffer = io.BytesIO()
    Pickler(buffer, protocol=5).dump(value)
    return buffer.getvalue()


def _reduced(found: Any, name: str) -> Any:
    """How to pickle what neither pickle nor cloudpickle does right. `name` is what the module that was started is
    called where this goes."""
    if isinstance(found, type | FunctionType):
        module = found.__module__
        if name and module in script.NAMES and script.look_up(sys.modules.get(module), found.__qualname__) is found:
            return _named, (name, found.__qualname__)
    elif isinstance(found, io.IOBase) and not isinstance(found, _NO_FILE) and found not in (sys.stdout, sys.stderr):
        raise pickle.PicklingError("an open file does not reach into another process")
    elif isinstance(found, memoryview):
        raise pickle.PicklingError("a memoryview would arrive as bytes")
    return NotImplemented


def _named(module: str, qualname: str) -> Any:
    """Unpickle something by its name."""
    found = script.find(module, qualname)
    if found is None:
        __import__(module)
        found = functools.reduce(getattr, qualname.split("."), sys.modules[module])
    return found


def _blame(args: tuple[Any, ...], kwargs: Mapping[str, Any], error: Exception) -> str:
    """Say which argument it is, and what to pass instead."""
    named = [(f"argument {place}", value) for place, value in enumerate(args, 1)]
    named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for name, value in named:
        try:
            _cloudpickle(value)
        except Exception as fault:
            return (
                f"{name}, a {_type_name(value)}, cannot be pickled: {type(fault).__name__}: {fault}. {_advice(value)}"
            )
    return f"the arguments cannot be pickled together: {type(error).__name__}: {error}"


def _advice(value: object) -> str:
    if isinstance(value, io.IOBase):
        return "Pass its path, or what it contains."
    if isinstance(value, GeneratorType | AsyncGeneratorType | CoroutineType):
        return "It has not run yet, and can run in this process only: pass what it gives, as a list."
    if isinstance(value, memoryview):
        return "Pass bytes(view)."
    if hasattr(value, "acquire") and hasattr(value, "release"):
        return "A lock holds within one process: max_concurrency or a serial queue hold for the whole cluster."
    return DEFAULT_ADVICE


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
