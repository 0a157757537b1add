"""pydantic models as arguments, where pydantic is installed: checked at the enqueue, and models again in the job,
whichever client enqueued it. Nothing here imports pydantic: who has a model has imported it."""

from __future__ import annotations

import inspect
import json
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..errors import InvalidJob
from ..model import Codec

ERRORS_SHOWN = 5


class Adapter(Protocol):
    """What is used of a `pydantic.TypeAdapter`."""

    def validate_python(self, value: Any, /) -> Any: ...
    def validate_json(self, value: str, /) -> Any: ...


def models_of(function: Callable[..., Any], signature: inspect.Signature) -> dict[str, Adapter]:
    """The parameters whose type has a pydantic model in it, and what checks them."""
    pydantic = sys.modules.get("pydantic")
    base = getattr(pydantic, "BaseModel", None)
    if base is None:
        return {}
    try:
        hints = typing.get_type_hints(getattr(function, "perform", function), include_extras=True)
    except Exception:       # a name that exists for type checkers only
        return {}
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        name: pydantic.TypeAdapter(hints[name])     # type: ignore[union-attr]
        for name, one in signature.parameters.items()
        if one.kind not in kinds and name in hints and _mentions(hints[name], base)
    }


def validated(
    task: str, models: Mapping[str, Adapter], signature: inspect.Signature, args: tuple[Any, ...],
    kwargs: Mapping[str, Any], codec: Codec = "pickle",
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, with models where there are to be some. Raises `InvalidJob`, which names argument and fields."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InvalidJob(f"{task}{signature}: {error}") from None
    for name, adapter in models.items():
        if name not in bound.arguments:
            continue
        value = bound.arguments[name]
        try:
            bound.arguments[name] = (
                adapter.validate_json(json.dumps(value)) if codec == "json" else adapter.validate_python(value)
            )
        except ValueError as error:         # a ValidationError is one
            raise InvalidJob(f"{task}: argument {name} {_fault(error)}") from None
    return bound.args, bound.kwargs


def as_json(value: Any) -> Any:
    """For `json.dumps`: a model as what it is in JSON."""
    dump = getattr(value, "model_dump", None)
    if dump is None or isinstance(value, type):
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
    return dump(mode="json")


def _mentions(hint: Any, base: type) -> bool:
    if isinstance(hint, type) and not typing.get_args(hint):
        return issubclass(hint, base)
    return any(_mentions(part, base) for part in typing.get_args(hint))


def _fault(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    if errors is None:
        return f"is not valid: {error}"
    found = errors(include_url=False, include_context=False, include_input=False)
    text = "; ".join(
        f"{'.'.join(map(str, one['loc'])) or 'the value'}: {one['msg']}" for one in found[:ERRORS_SHOWN]
    )
    more = len(found) - ERRORS_SHOWN
    return f"is not valid: {text}" + (f"; and {more} more" if more > 0 else "")
