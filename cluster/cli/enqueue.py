"""`rota enqueue`: one job from a shell."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from rota.client.signature import check_call

from ..terminal import complain, say
from . import show
from .ask import Json, KeyFile, TokenFile, Url, client
from .options import seconds


def enqueue(
    task: Annotated[str, typer.Argument(metavar="MODULE:TASK", help="The task's name, as in shop.tasks:thumbnail.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARGS]…", help="Each is read as JSON if it is JSON, as text otherwise."),
    ] = None,
    named: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="NAME=VALUE", help="A keyword argument. Repeatable.")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Default: the queue named default.")] = None,
    priority: Annotated[
        int | None, typer.Option(min=-100, max=100, help="-100 to 100; higher runs first. Default: 0.")
    ] = None,
    after: Annotated[
        float | None, typer.Option(metavar="SECONDS", parser=seconds, help="Run it no sooner than this.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the result and print it.")] = False,
    timeout: Annotated[
        float | None, typer.Option(
            metavar="SECONDS", parser=seconds, help="With --wait: give up after so many. 0: look once. Status 6 then."
        )
    ] = None,
    url: Url = None,
    token_file: TokenFile = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Enqueue one job and print its id. It returns when the job is stored.

    [bold]Examples[/]

      rota enqueue shop.tasks:thumbnail cat.jpg --set width=120
      rota enqueue shop.tasks:report '{"year": 2026}' --queue slow --after 3600
      rota enqueue shop.tasks:add 1 2 --wait

    An argument that would be read as JSON but is meant as text goes in quotes of its own: '"2026"'.
    """
    from rota.client.named import NamedTask  # late, as in `ask.py`

    args, kwargs = list(map(value_of, arguments or [])), dict(map(named_value, named or []))
    target = NamedTask(task).using(queue=queue, priority=priority, run_after=after)
    with client(url, token_file, key_file) as asked:
        known = next((view for view in asked.tasks() if view.name == target.name), None)
        if known is not None:
            check_call(target.name, known.parameters, len(args), kwargs)
        handle = asked.enqueue(target, *args, **kwargs)
        if not wait:
            say(json.dumps({"id": handle.id}) if as_json else handle.id)
            return
        try:
            result = handle.result(timeout)
        except KeyboardInterrupt:
            complain(f"job {handle.id} goes on: look with `rota job {handle.id}`")
            raise
    if as_json:
        show.as_json({"id": handle.id, "result": result})
    else:
        say(result if isinstance(result, str) else repr(result), lines=True)


def value_of(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def named_value(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise typer.BadParameter(f"{text!r} is not of the form name=value", param_hint="--set")
    return name, value_of(value)
