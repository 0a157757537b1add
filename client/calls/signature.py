"""A task's parameters as data: so that those who know a task by name only can check a call as well."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

from ..errors import InvalidJob
from ..model import Parameter

PARAMETERS_MAX = 100
"""Of a function with more, calls are not checked by name."""

_KINDS = (
    inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD,
)


def parameters_of(signature: inspect.Signature) -> tuple[Parameter, ...] | None:
    """None where there are too many."""
    found = tuple(
        Parameter(one.name, int(one.kind), one.default is inspect.Parameter.empty)
        for one in signature.parameters.values()
    )
    return found if len(found) <= PARAMETERS_MAX else None


def signature_of(parameters: tuple[Parameter, ...]) -> inspect.Signature | None:
    """None for what no function's parameters can be: somebody else wrote them."""
    try:
        return inspect.Signature([
            inspect.Parameter(
                one.name, _KINDS[one.kind],
                default=inspect.Parameter.empty if one.required or one.kind in (2, 4) else ...,
            )
            for one in parameters
        ])
    except (ValueError, TypeError):
        return None


def check_call(task: str, parameters: tuple[Parameter, ...] | None, count: int, names: Collection[str]) -> None:
    """Raise `InvalidJob` for a call with so many arguments, and these by name, that its task would not take.
    `parameters` None: that is not known."""
    signature = None if parameters is None else signature_of(parameters)
    if signature is None:
        return
    positional: list[Any] = [None] * count
    try:
        signature.bind(*positional, **dict.fromkeys(names))
    except TypeError as error:
        raise InvalidJob(f"{task}{shown(signature)}: {error}") from None


def shown(signature: inspect.Signature) -> str:
    """Defaults are not known, only that there are some."""
    return str(signature).replace("Ellipsis", "…")
