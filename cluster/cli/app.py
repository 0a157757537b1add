"""The `rota` command: its parts, and how errors become messages and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import NoReturn

import typer

from rota.client import errors

from ..terminal import complain, finish, nobody_reads, prepare, say
from . import completion
from .inspect import doctor, flow, look, watch
from .manage import enqueue, offload, operate, outbox, reset, schedule, shell
from .start import demo, secrets, serve

DONE, FAILED, MISTAKEN, UNREACHABLE, REFUSED, UNKNOWN, TIMED_OUT = range(7)
INTERRUPTED = 130
"""Exit codes: done; the job or the demo failed; usage or configuration; nobody answered; refused; no such job."""

app = typer.Typer(
    name="rota",
    help="A distributed job queue on etcd.",
    epilog="Try it: [bold]rota dev --app mypkg.tasks[/] in one terminal, [bold]rota enqueue mypkg.tasks:hello Ann[/] "
    "in another.\n\nExit codes: 0 done, 1 the job failed or the doctor found something bad, 2 usage or configuration, "
    "3 nobody answered, 4 refused, 5 no such job, 6 the time to wait for a result was over.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        say(f"rota {version('rota')}")
        raise typer.Exit


@app.callback()
def rota(
    _: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


NODES, JOBS, START, WATCH = "Run nodes", "Work with jobs", "Start here", "Watch the cluster"

_PANELS: list[tuple[str, dict[str, Callable[..., None]]]] = [
    (START, {"demo": demo.demo, "dev": serve.dev, "completion": completion.completion}),
    (NODES, {"init": secrets.init, "token": secrets.token, "node": serve.node, "doctor": doctor.doctor,
             "reset": reset.reset}),
    (WATCH, {"top": watch.top, "tail": watch.tail, "dashboard": watch.dashboard}),
    (JOBS, {"enqueue": enqueue.enqueue, "jobs": look.jobs, "job": look.job, "cancel": operate.cancel,
            "flow": flow.flow, "flows": flow.flows, "queues": look.queues, "finished": look.finished,
            "operations": operate.operations, "nodes": look.nodes,
            "shell": shell.shell}),
]
_GROUPS = {"queue": operate.queue, "failed": operate.failed, "schedule": schedule.schedule, "outbox": outbox.outbox,
           "offload": offload.offload}

for panel, commands in _PANELS:
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(command)
for name, group in _GROUPS.items():
    app.add_typer(group, name=name, rich_help_panel=JOBS)


def main() -> NoReturn:
    """Run the command line. Errors of rota's own tree end in a message and an exit code, all others in a traceback."""
    prepare()
    try:
        status = _run()
        finish()
    except BrokenPipeError:
        nobody_reads()
    sys.exit(status)


def _run() -> int:
    try:
        app()
    except errors.RotaError as error:
        complain(f"rota: {error}")
        return exit_code(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as end:
        if isinstance(end.code, str):
            complain(end.code)
            return FAILED
        return end.code or DONE
    return DONE


def exit_code(error: errors.RotaError) -> int:
    match error:
        case errors.ConfigError():
            return MISTAKEN
        case errors.Unreachable() | errors.ProtocolMismatch() | errors.LedgerUnavailable() | errors.EnqueueUnknown():
            return UNREACHABLE
        case errors.EnqueueError() | errors.Unauthorized() | errors.LedgerError():
            return REFUSED
        case errors.ResultTimeout():
            return TIMED_OUT
        case errors.JobUnknown() | errors.OperationUnknown() | errors.FlowUnknown():
            return UNKNOWN
        case _:
            return FAILED
