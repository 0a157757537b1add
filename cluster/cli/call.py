"""A call as a shell gives it: a task's name and arguments, which `rota enqueue` and `rota schedule put` share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rota.client.calls.signature import check_call

if TYPE_CHECKING:
    from rota.client.api.clients import Client

TaskName = Annotated[
    str, typer.Argument(metavar="MODULE:TASK", help="The task's name, as in shop.tasks:thumbnail.")
]
Arguments = Annotated[
    list[str] | None, typer.Argument(metavar="[ARGS]…", help="Each is read as JSON if it is JSON, as text otherwise.")
]
Named = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="NAME=VALUE", help="A keyword argument. Repeatable.")
]
QueueOf = Annotated[str | None, typer.Option("--queue", help="Default: the queue named default.")]
Priority = Annotated[
    int | None, typer.Option("--priority", min=-100, max=100, help="-100 to 100; higher runs first. Default: 0.")
]


def values(arguments: Sequence[str] | None, named: Sequence[str] | None) -> tuple[list[Any], dict[str, Any]]:
    """(args, kwargs)"""
    return list(map(_value, arguments or ())), dict(map(_named, named or ()))


def check(client: Client, task: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Raise `InvalidJob` for a call that the task would not take, as far as nodes have told of it."""
    known = next((view for view in client.tasks() if view.name == task), None)
    if known is not None:
        check_call(task, known.parameters, len(args), kwargs)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _named(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise typer.BadParameter(f"{text!r} is not of the form name=value", param_hint="--set")
    return name, _value(value)
