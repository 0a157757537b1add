"""`rota queue …`, `rota failed retry|delete`, `rota cancel`: what a person does to a running cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from rota.client.errors import ConfigError, InvalidJob, JobUnknown
from rota.client.ids import parse_job_id
from rota.client.views import QueueSettings

from ..terminal import say
from . import show
from .ask import Json, TokenFile, Url, client

Name = Annotated[str, typer.Argument(metavar="NAME", help="The queue's name.")]

queue = typer.Typer(no_args_is_help=True, help="Pause, resume, set, empty a queue; help a serial queue on.")


@queue.command()
def pause(name: Name, url: Url = None, token_file: TokenFile = None, json: Json = False) -> None:
    """Start no further jobs of a queue; those that run go on."""
    with client(url, token_file) as asked:
        _show(name, asked.pause(name), json)


@queue.command()
def resume(name: Name, url: Url = None, token_file: TokenFile = None, json: Json = False) -> None:
    """Start jobs of a paused queue again."""
    with client(url, token_file) as asked:
        _show(name, asked.resume(name), json)


@queue.command("set")
def set_(
    name: Name,
    serial: Annotated[
        bool | None, typer.Option("--serial/--no-serial", help="One job at a time, the next only after a success.")
    ] = None,
    max_concurrency: Annotated[
        int | None, typer.Option(min=0, help="Jobs of the queue at a time, in the whole cluster. 0: no limit.")
    ] = None,
    url: Url = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """Change settings of a queue, and show them all.

    What an app declares with rota.Queue(…) is written again when a node starts.

    [bold]Example[/]

      rota queue set payments --serial
    """
    with client(url, token_file) as asked:
        if max_concurrency is None:
            settings = asked.set_queue(name, serial=serial)
        else:
            settings = asked.set_queue(name, serial=serial, max_concurrency=max_concurrency or None)
    _show(name, settings, json)


@queue.command()
def empty(
    name: Name,
    expect: Annotated[
        int | None, typer.Option(metavar="N", help="Do it if exactly so many jobs wait. Default: ask.")
    ] = None,
    url: Url = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """Cancel all waiting jobs of a queue. Their number has to be confirmed.

    [bold]Example[/]

      rota queue empty mail --expect 1200
    """
    with client(url, token_file) as asked:
        if expect is None:
            waiting = next((view.waiting for view in asked.queues() if view.queue == name), 0)
            expect = typer.prompt(f"{waiting:,} jobs wait in queue {name}. Type their number to cancel them", type=int)
        count = asked.empty_queue(name, expect)
    show.as_json({"emptied": count}) if json else say(f"{count:,} jobs cancelled")


@queue.command()
def retry_head(name: Name, url: Url = None, token_file: TokenFile = None, json: Json = False) -> None:
    """Run the failed job at the head of a serial queue again, now."""
    with client(url, token_file) as asked:
        job = asked.retry_head(name)
    show.as_json({"id": job}) if json else say(f"{job} is tried again")


@queue.command()
def skip_head(name: Name, url: Url = None, token_file: TokenFile = None, json: Json = False) -> None:
    """Put the failed job at the head of a serial queue into the failed set, and go on with the next."""
    with client(url, token_file) as asked:
        job = asked.skip_head(name)
    show.as_json({"id": job}) if json else say(f"{job} is in the failed set")


Ids = Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="This job. Repeatable.")]
OfQueue = Annotated[str, typer.Option("--queue", help="Only jobs of this queue.")]
OfTask = Annotated[str, typer.Option("--task", metavar="MODULE:TASK", help="Only jobs of this task.")]
WithError = Annotated[str, typer.Option("--error", metavar="TEXT", help="Only if the error contains this text.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")]

failed = typer.Typer(invoke_without_command=True)


@failed.callback()
def failed_jobs(
    context: typer.Context,
    queue: Annotated[str | None, typer.Option(help="Only this queue.")] = None,
    limit: Limit = 50,
    url: Url = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """List jobs that failed for good; retry or delete them.

    Without a command they are listed. `rota job ID` shows one with its traceback.

    [bold]Examples[/]

      rota failed --queue mail --json | jq '.[].error'

      rota failed retry --error ConnectionError
    """
    if context.invoked_subcommand is None:
        list_(queue, limit, url, token_file, json)


@failed.command("list")
def list_(
    queue: Annotated[str | None, typer.Option(help="Only this queue.")] = None,
    limit: Limit = 50,
    url: Url = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """List them: error, attempts, node."""
    with client(url, token_file) as asked:
        views = asked.failed(queue, limit)
    show.as_json(views) if json else show.failed(views)


@failed.command()
def retry(
    ids: Ids = None, queue: OfQueue = "", task: OfTask = "", error: WithError = "", all: All = False,
    url: Url = None, token_file: TokenFile = None, json: Json = False,
) -> None:
    """Run failed jobs again, from their first attempt: those that fit every option given."""
    _said(ids, queue, task, error, all)
    with client(url, token_file) as asked:
        count = asked.retry_failed(ids or [], queue=queue, task=task, error=error, all=all)
    show.as_json({"count": count}) if json else say(f"{count:,} jobs are queued again")


@failed.command()
def delete(
    ids: Ids = None, queue: OfQueue = "", task: OfTask = "", error: WithError = "", all: All = False,
    url: Url = None, token_file: TokenFile = None, json: Json = False,
) -> None:
    """Forget failed jobs for good: those that fit every option given."""
    _said(ids, queue, task, error, all)
    with client(url, token_file) as asked:
        count = asked.delete_failed(ids or [], queue=queue, task=task, error=error, all=all)
    show.as_json({"count": count}) if json else say(f"{count:,} jobs deleted")


def cancel(
    id: Annotated[str, typer.Argument(metavar="ID", help="As `rota enqueue` printed it.")],
    url: Url = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """Cancel a job, wherever it is.

    One that waits or is scheduled never runs. One that runs is asked to stop
    (an `async def` job by CancelledError, a plain function if it looks), and
    stopped by force after its task's cancel_grace, two seconds by default.

    [bold]Example[/]

      rota cancel k3f9q2m7xa5t-0000001f/0
    """
    try:
        parse_job_id(id)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    with client(url, token_file) as asked:
        try:
            outcome = asked.cancel(id)
        except InvalidJob as error:
            raise JobUnknown(str(error), id) from None
    words = {
        "cancelled": "cancelled: it had not begun", "requested": "a node has it, and stops it", "ended": "it had ended",
    }  # fmt: skip
    show.as_json({"outcome": outcome}) if json else say(f"{id}: {words[outcome]}")


def _said(ids: list[str] | None, queue: str, task: str, error: str, all: bool) -> None:
    if bool(ids or queue or task or error) == all:
        raise ConfigError("which failed jobs? Say --id, --queue, --task or --error; or --all, and nothing else")


def _show(name: str, settings: QueueSettings, json: bool) -> None:
    if json:
        show.as_json(settings)
        return
    words = ["paused" if settings.paused else "open"]
    words += ["serial"] if settings.serial else []
    words += [f"at most {settings.max_concurrency} at a time"] if settings.max_concurrency else []
    say(f"queue {name}: {', '.join(words)}")
