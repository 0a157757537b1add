"""`rota queue …`, `rota failed retry|delete`, `rota cancel`: what a person does to a running cluster."""

from __future__ import annotations

import enum
import time
from typing import Annotated

import typer

from rota.client.api.operations import LOOK_S, UNSET
from rota.client.errors import ConfigError, InvalidJob, JobUnknown
from rota.client.ids import parse_job_id
from rota.client.model import ON_FULLS
from rota.client.options.checks import one_of
from rota.client.wire.views import FailedFilter, QueueSettings

from ...terminal import say
from .. import show
from ..ask import Json, TokenFile, Url, client
from .progress import Following

Name = Annotated[str, typer.Argument(metavar="NAME", help="The queue's name.")]

queue = typer.Typer(no_args_is_help=True, help="Pause, resume, set, empty a queue; help a serial queue on.")


class Full(enum.Enum):
    REFUSE, WAIT = "refuse", "wait"


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
        int | None, typer.Option(min=1, help="Jobs of the queue at a time, in the whole cluster.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="RATE", help='How many may begin in a time: "100/minute", "5/10s, burst 20".')
    ] = None,
    max_waiting: Annotated[
        int | None, typer.Option(min=1, help="Jobs that may wait in it; enqueues beyond that are refused, or wait.")
    ] = None,
    on_full: Annotated[
        Full | None, typer.Option(help="With --max-waiting: what becomes of enqueues beyond it. Default: refuse.")
    ] = None,
    no_bound: Annotated[bool, typer.Option("--no-bound", help="Lift the bound of jobs that wait.")] = False,
    no_rate: Annotated[bool, typer.Option("--no-rate", help="Lift the rate.")] = False,
    no_limit: Annotated[bool, typer.Option("--no-limit", help="Lift the limit of jobs at a time.")] = False,
    url: Url = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """Change settings of a queue, and show them all.

    What an app declares with rota.Queue(…) is written again when a node starts.

    [bold]Example[/]

      rota queue set payments --serial
    """
    given = (serial, max_concurrency, rate, max_waiting, on_full)
    if all(value is None for value in given) and not (no_limit or no_rate or no_bound):
        raise typer.BadParameter(
            "nothing to change: say --serial, --no-serial, --max-concurrency, --no-limit, --rate, --no-rate, "
            "--max-waiting, --on-full or --no-bound"
        )
    if max_waiting is not None and no_bound:
        raise typer.BadParameter("--max-waiting and --no-bound are opposites")
    if rate is not None and no_rate:
        raise typer.BadParameter("--rate and --no-rate are opposites")
    if max_concurrency is not None and no_limit:
        raise typer.BadParameter("--max-concurrency and --no-limit are opposites")
    with client(url, token_file) as asked:
        settings = asked.set_queue(
            name, serial=serial, max_concurrency=max_concurrency if max_concurrency or no_limit else UNSET,
            rate=rate if rate or no_rate else UNSET, max_waiting=max_waiting if max_waiting or no_bound else UNSET,
            on_full=one_of(on_full.value, ON_FULLS, "--on-full") if on_full is not None else None,
        )
    _show(name, settings, json)


@queue.command()
def empty(
    name: Name,
    expect: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Do it if exactly so many jobs wait. Default: ask.")
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
        with Following() as following:
            asked.empty_queue(name, expect, on_progress=following.seen)
    _over(following, json, "cancelled")


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
Limit = Annotated[int, typer.Option(min=1, help="Show at most this many.")]

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
        views = asked.failed(queue, limit + 1)
    show.as_json(views[:limit]) if json else show.failed(views[:limit])
    show.more(views, limit)


@failed.command()
def retry(
    ids: Ids = None, queue: OfQueue = "", task: OfTask = "", error: WithError = "", all: All = False,
    url: Url = None, token_file: TokenFile = None, json: Json = False,
) -> None:
    """Run failed jobs again, from their first attempt: those that fit every option given."""
    _selection(ids, queue, task, error, all)
    with client(url, token_file) as asked, Following() as following:
        asked.retry_failed(ids or [], queue=queue, task=task, error=error, all=all, on_progress=following.seen)
    _over(following, json, "are queued again")


@failed.command()
def delete(
    ids: Ids = None, queue: OfQueue = "", task: OfTask = "", error: WithError = "", all: All = False,
    url: Url = None, token_file: TokenFile = None, json: Json = False,
) -> None:
    """Forget failed jobs for good: those that fit every option given."""
    _selection(ids, queue, task, error, all)
    with client(url, token_file) as asked, Following() as following:
        asked.delete_failed(ids or [], queue=queue, task=task, error=error, all=all, on_progress=following.seen)
    _over(following, json, "deleted")


def cancel(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]…", help="As `rota enqueue` printed it.")] = None,
    queue: Annotated[str, typer.Option("--queue", help="All jobs of this queue.")] = "",
    task: Annotated[str, typer.Option("--task", metavar="MODULE:TASK", help="All jobs of this task.")] = "",
    all: Annotated[bool, typer.Option("--all", help="All jobs there are.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether many are meant.")] = False,
    url: Url = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """Cancel jobs, wherever they are.

    One that waits or is scheduled never runs. One that runs is asked to stop
    (an `async def` job by CancelledError, a plain function if it looks), and
    stopped by force after its task's cancel_grace, two seconds by default.

    [bold]Examples[/]

      rota cancel k3f9q2m7xa5t_0000001f_0

      rota cancel --queue mail --task shop.mail:remind
    """
    for id in ids or []:
        try:
            parse_job_id(id)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    if sum((bool(ids), bool(queue or task), all)) != 1:
        raise typer.BadParameter("which jobs? Give their ids; or --queue, --task or both; or --all, and nothing else")
    with client(url, token_file) as asked:
        if not ids:
            words = FailedFilter(queue=queue, task=task, all=all).words
            if not yes:
                typer.confirm(f"Cancel the jobs of {words}, those that run as well?", abort=True)
            with Following() as following:
                asked.cancel_many(queue=queue, task=task, all=all, on_progress=following.seen)
            _over(following, json, "cancelled, or asked to stop")
            return
        outcomes = {}
        for id in ids:
            try:
                outcomes[id] = asked.cancel(id)
            except InvalidJob as error:
                raise JobUnknown(str(error), id) from None
            if not json:
                say(f"{id}: {OUTCOMES[outcomes[id]]}")
    if json:
        show.as_json({"outcome": outcomes[ids[0]]} if len(ids) == 1 else {"outcomes": outcomes})


OUTCOMES = {
    "cancelled": "cancelled: it had not begun", "requested": "a node has it, and stops it", "ended": "it had ended",
}


def operations(
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Only this one.")] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for its end.")] = False,
    url: Url = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """List what is done to many jobs at once: retried, deleted, cancelled; and how far it is.

    An operation goes on when the command that began it is interrupted, and
    when a node is lost. One that has ended is listed for an hour.

    [bold]Example[/]

      rota operations 7f3k9q2m7xa5 --wait
    """
    if wait and id is None:
        raise typer.BadParameter("which one? Say its id", param_hint="--wait")
    with client(url, token_file) as asked:
        views = asked.operations() if id is None else [asked.operation(id)]
        if id is not None and wait:
            with Following() as following:
                while not views[0].is_over:
                    following.seen(views[0])
                    time.sleep(LOOK_S)
                    views = [asked.operation(id)]
    if json:
        show.as_json(views if id is None else views[0])
    else:
        show.operations(views)


def _over(following: Following, json: bool, words: str) -> None:
    view = following.last
    assert view is not None
    show.as_json(view) if json else say(f"{view.count:,} jobs {words}{following.left}")


def _selection(ids: list[str] | None, queue: str, task: str, error: str, all: bool) -> None:
    if bool(ids or queue or task or error) == all:
        raise ConfigError("which failed jobs? Say --id, --queue, --task or --error; or --all, and nothing else")


def _show(name: str, settings: QueueSettings, json: bool) -> None:
    if json:
        show.as_json(settings)
        return
    words = ["paused" if settings.paused else "open"]
    words += ["serial"] if settings.serial else []
    words += [f"at most {settings.max_concurrency} at a time"] if settings.max_concurrency else []
    words += [f"at most {settings.rate}"] if settings.rate else []
    words += [f"at most {settings.max_waiting:,} wait ({settings.on_full})"] if settings.max_waiting else []
    say(f"queue {name}: {', '.join(words)}")
