"""Keys that jobs have by their arguments, beside the one of limits: whose they are (`fair_key`), what a rate counts
them by (`rate_key`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from ..errors import ConfigError
from . import checks as options

KeyBy: TypeAlias = str | Callable[..., str | int | None]
"""The name of an argument, or a function of the arguments."""


class Mark(msgspec.Struct, frozen=True):
    """`name` is the field of the terms that it fills."""

    name: Literal["fair_key", "rate_key"]
    by: KeyBy
    signature: inspect.Signature

    def of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Of one call; "": it has none. Raises `InvalidJob`."""
        if callable(self.by):
            return options.key(self.by(*args, **kwargs), self.name)
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return options.key(bound.arguments[self.by], self.name)


def mark(task: str, name: Literal["fair_key", "rate_key"], by: KeyBy, signature: inspect.Signature) -> Mark:
    """Raises `ConfigError` for what cannot be meant."""
    if isinstance(by, str):
        if by not in signature.parameters:
            raise ConfigError(f"{task}: {name}={by!r} is not the name of one of its arguments")
    elif not callable(by):
        raise ConfigError(f"{task}: {name} has to be the name of an argument, or a function of the arguments")
    return Mark(name, by, signature)
