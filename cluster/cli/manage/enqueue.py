"""`rota enqueue`: one job from a shell."""

from __future__ import annotations

import enum
import json
from typing import Annotated

import typer

from ...terminal import complain, say
from .. import call, show
from ..ask import Json, KeyFile, TokenFile, Url, client
from ..options import seconds


class OnUpstream(enum.Enum):
    BLOCK, CANCEL, RUN = "block", "cancel", "run"


class Conflict(enum.Enum):
    EXISTING, RAISE, REPLACE = "existing", "raise", "replace"


def enqueue(
    task: call.TaskName,
    arguments: call.Arguments = None,
    named: call.Named = None,
    queue: call.QueueOf = None,
    priority: call.Priority = None,
    after: Annotated[
        float | None, typer.Option(metavar="SECONDS", parser=seconds, help="Run it no sooner than this.")
    ] = None,
    after_job: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Run it when this job has ended well. Repeatable.")
    ] = None,
    on_upstream: Annotated[
        OnUpstream | None, typer.Option(help="With --after-job, where one does not end well. Default: block.")
    ] = None,
    expires: Annotated[
        float | None, typer.Option(metavar="SECONDS", parser=seconds, help="Do not run it if it has not begun by then.")
    ] = None,
    unique_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Only if no other job of the task with this key is there.")
    ] = None,
    unique_for: Annotated[
        float | None, typer.Option(
            metavar="SECONDS", parser=seconds, help="With --unique-key: hold it for so long, whatever becomes of it."
        )
    ] = None,
    on_conflict: Annotated[
        Conflict | None, typer.Option(help="With --unique-key, where another job has it. Default: existing.")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="The same key, the same job: a repeat enqueues nothing.")
    ] = None,
    requires: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="Only on a node with this label. Repeatable.")
    ] = None,
    weight: Annotated[int | None, typer.Option(metavar="SLOTS", help="How many slots of its node it takes.")] = None,
    fair_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="To whom it belongs: keys take turns in its queue.")
    ] = None,
    rate_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="What its task's rate per key counts it by.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME=TEXT", help="A header that travels with the job. Repeatable.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the result and print it.")] = False,
    timeout: Annotated[
        float | None, typer.Option(
            metavar="SECONDS", parser=seconds, help="With --wait: give up after so long, with status 6. 0: look once."
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
      rota enqueue shop.tasks:publish --after-job k3f9q2m7xa5t_0000001f_0

    An argument that would be read as JSON but is meant as text goes in quotes of its own: '"2026"'.
    """
    from rota.client.tasks.named import NamedTask  # late, as in `ask.py`

    args, kwargs = call.values(arguments, named)
    target = NamedTask(task).using(
        queue=queue, priority=priority, run_after=after, expires=expires, unique_key=unique_key, unique_for=unique_for,
        on_conflict=on_conflict.value if on_conflict is not None else None, idempotency_key=idempotency_key,
        headers=dict(map(_header, header or [])), after=after_job or None,
        on_upstream=on_upstream.value if on_upstream is not None else None, requires=requires, weight=weight,
        fair_key=fair_key, rate_key=rate_key,
    )
    with client(url, token_file, key_file) as asked:
        call.check(asked, target.name, args, kwargs)
        handle = asked.enqueue(target, *args, **kwargs)
        if not wait:
            say(json.dumps({"id": handle.id, "existing": handle.existing}) if as_json else handle.id)
            if handle.existing and not as_json:
                complain(f"nothing was enqueued: job {handle.id} has the unique key")
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


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} is not of the form name=text", param_hint="--header")
    return name, value
