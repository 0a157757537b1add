"""`rota enqueue`: one job from a shell."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ..terminal import complain, say
from . import call, show
from .ask import Json, KeyFile, TokenFile, Url, client
from .options import seconds


def enqueue(
    task: call.TaskName,
    arguments: call.Arguments = None,
    named: call.Named = None,
    queue: call.QueueOf = None,
    priority: call.Priority = None,
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

    args, kwargs = call.values(arguments, named)
    target = NamedTask(task).using(queue=queue, priority=priority, run_after=after)
    with client(url, token_file, key_file) as asked:
        call.check(asked, target.name, args, kwargs)
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
