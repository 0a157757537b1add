"""Which jobs of a task are alike, as `@task(unique=…)` says: the text that one of them has for itself."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from ..errors import ConfigError, InvalidJob
from .checks import KEY_CHARS_MAX
from .checks import key as key_text

UniqueBy: TypeAlias = bool | str | tuple[str, ...] | Callable[..., str | int | None]


class Uniqueness:
    """Of one task. Raises `ConfigError` for what cannot be meant."""

    def __init__(self, task: str, signature: inspect.Signature, by: UniqueBy) -> None:
        self._task = task
        self._signature = signature
        self._by = by
        if by is True:
            self._names: tuple[str, ...] | None = ()
        elif callable(by):
            self._names = None
        else:
            self._names = (by,) if isinstance(by, str) else by if isinstance(by, tuple) else ()
            if not self._names or not all(name in signature.parameters for name in self._names):
                raise ConfigError(
                    f"{task}: unique={by!r} does not name its arguments: give True for all of them, the name of "
                    "one, a tuple of names, or a function of the arguments"
                )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Uniqueness) and (self._task, self._by) == (other._task, other._by)

    def __hash__(self) -> int:
        return hash(self._task)

    def key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Raises `InvalidJob` for arguments that cannot be compared."""
        if callable(self._by):
            return key_text(self._by(*args, **kwargs))
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if not self._names:
            return f"all:{_digest(self._json(bound.arguments))}"
        values = {name: bound.arguments[name] for name in self._names}
        text = ",".join(f"{name}={self._json(value).decode()}" for name, value in values.items())
        if len(text) <= KEY_CHARS_MAX and text.isprintable():
            return text
        return f"{','.join(self._names):.60}:{_digest(self._json(values))}"

    def _json(self, value: object) -> bytes:
        """Equal for equal values in every process; which bytes pickle makes of them depends on more than that."""
        try:
            return msgspec.json.encode(value, order="deterministic")
        except Exception as error:
            raise InvalidJob(
                f"{self._task}: unique={self._by!r:.80} compares arguments as JSON, and one of them is not JSON "
                f"({error}): name those that count, or give a function of the arguments"
            ) from None


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16, person=b"rota-unique").hexdigest()
