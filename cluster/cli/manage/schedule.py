"""`rota schedule …`: jobs that come back by themselves."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated

import typer

from rota.client.options.checks import one_of
from rota.client.options.timetable import CATCH_UPS, OVERLAPS
from rota.client.wire.views import ScheduleView

from ...terminal import Sheet, say
from .. import call, show
from ..ask import Json, KeyFile, TokenFile, Url, client

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]

schedule = typer.Typer(no_args_is_help=True, help="Jobs that come back by themselves: list, put, pause, run, delete.")


@schedule.command("list")
def list_(url: Url = None, token_file: TokenFile = None, json: Json = False) -> None:
    """Every schedule: when it is due, when it was, and what became of the job."""
    with client(url, token_file) as asked:
        views = asked.schedules.list()
    if json:
        show.as_json(views)
        return
    table = Sheet("schedule", "task", "when", "next", "last", "job", "state")
    for view in views:
        table.add(
            view.name, view.task, view.when, moment(view.next), moment(view.last),
            f"{view.last_job} {view.last_place}".strip(), state(view),
        )
    table.show("no schedule")


@schedule.command()
def put(
    name: Name,
    task: call.TaskName,
    arguments: call.Arguments = None,
    named: call.Named = None,
    cron: Annotated[
        str | None, typer.Option(metavar="'M H D M W'", help="Minute, hour, day, month, weekday: '0 3 * * 1-5'.")
    ] = None,
    tz: Annotated[str | None, typer.Option(help="The time zone of --cron: Europe/Berlin. Default: UTC.")] = None,
    every: Annotated[float | None, typer.Option(metavar="SECONDS", help="An interval, instead of --cron.")] = None,
    jitter: Annotated[float, typer.Option(metavar="SECONDS", help="Each job is due up to so much later.")] = 0.0,
    catch_up: Annotated[
        str, typer.Option(help="Ticks that nobody was there for: latest (the newest is made up for), all or none.")
    ] = "latest",
    overlap: Annotated[
        str, typer.Option(help="A tick while the job before has not ended: allow, skip or queue.")
    ] = "allow",
    queue: call.QueueOf = None,
    priority: call.Priority = None,
    url: Url = None,
    token_file: TokenFile = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """Make a schedule, or change the one of this name.

    [bold]Examples[/]

      rota schedule put nightly shop.tasks:report 2026 --cron '0 3 * * 1-5' --tz Europe/Berlin
      rota schedule put pulse shop.tasks:ping --every 30 --overlap skip
    """
    from rota.client.tasks.named import NamedTask  # late, as in `ask.py`

    args, kwargs = call.values(arguments, named)
    target = NamedTask(task).using(queue=queue, priority=priority)
    with client(url, token_file, key_file) as asked:
        call.check(asked, target.name, args, kwargs)
        view = asked.schedules.put(
            name, target, args, kwargs, cron=cron, tz=tz, every=every, jitter=jitter,
            catch_up=one_of(catch_up, CATCH_UPS, "catch_up"), overlap=one_of(overlap, OVERLAPS, "overlap"),
        )
    _show(view, json)


@schedule.command()
def pause(name: Name, url: Url = None, token_file: TokenFile = None, json: Json = False) -> None:
    """Fire no further ticks; jobs that were enqueued go on."""
    with client(url, token_file) as asked:
        _show(asked.schedules.pause(name), json)


@schedule.command()
def resume(name: Name, url: Url = None, token_file: TokenFile = None, json: Json = False) -> None:
    """Go on from now; what was due meanwhile is not made up for."""
    with client(url, token_file) as asked:
        _show(asked.schedules.resume(name), json)


@schedule.command()
def run(name: Name, url: Url = None, token_file: TokenFile = None, json: Json = False) -> None:
    """Enqueue a job of it at once, beside its ticks, and print the job's id."""
    with client(url, token_file) as asked:
        job = asked.schedules.run_now(name)
    show.as_json({"id": job}) if json else say(job)


@schedule.command()
def delete(name: Name, url: Url = None, token_file: TokenFile = None, json: Json = False) -> None:
    """Forget it. Code that declares it puts it again when a node starts."""
    with client(url, token_file) as asked:
        asked.schedules.delete(name)
    show.as_json({"deleted": name}) if json else say(f"schedule {name} is deleted")


def moment(at: float | None) -> str:
    """In local time; how far away, where that is soon."""
    if at is None:
        return "–"
    away = at - time.time()
    text = f"{datetime.fromtimestamp(at):%Y-%m-%d %H:%M:%S}"
    return f"{text} (in {show.span(away)})" if 0 < away < 86_400 else text


def state(view: ScheduleView) -> str:
    words = ["paused"] if view.paused else []
    words += ["stale: no node's code declares it"] if view.stale else []
    words += [f"{view.pending} wait"] if view.pending else []
    return ", ".join(words)


def _show(view: ScheduleView, json: bool) -> None:
    if json:
        show.as_json(view)
    else:
        say(f"{view.name}: {view.when}; next {moment(view.next)}" + (f"; {state(view)}" if state(view) else ""))
