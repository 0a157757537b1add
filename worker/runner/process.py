"""`python -m rota.worker.runner.process`: the process in which user code runs. Started by the guard, never by hand.

It finds its channel, its permits (`channel.start_permits`) and its tally (`channel.tally`) as open files named in its
environment, imports the app and reports the tasks it found, or why it could not.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import os
import socket
import sys

from rota.client import collector, errors
from rota.client.tasks import queues
from rota.client.tasks import task as tasks
from rota.client.transports import transport
from rota.client.wire import sealing

from ..channel import channel
from ..channel.deadline import Lease
from ..channel.frames import Broken, Ready, Work
from ..channel.tally import Tally
from . import steps
from .async_runner import AsyncRunner
from .context import Runner
from .environment import forks, frameworks, logs, loop, search_path, stop_signals
from .environment.surroundings import protect_streams
from .execution import Functions, Runnable, describe, trace_of
from .sync_runner import SyncRunner
from .transport import RunnerTransport

RUNNER_FDS = "ROTA_RUNNER_FDS"     # as in guard.py, whose imports a runner can do without
OTEL = "ROTA_OTEL"                  # as in tracing.py, which is not always there
EXIT_BROKEN = 3
"""The exit status after `Broken`."""


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    sock, questions, permits, lease, tally = _inherited()
    _settle()
    if options.kind == "sync":
        runner: SyncRunner | AsyncRunner = SyncRunner(sock, permits, lease, tally)
    else:
        runner = AsyncRunner(sock, permits, lease, at_once=options.at_once)
    try:
        forks.watch((sock.fileno(), questions.fileno(), permits))
        logs.install(keep_of)
        if options.kind == "async":
            collector.look_rarely()     # before the import, so that the app may know better
        node = RunnerTransport(questions)
        transport.install(node)             # before the app is imported: it may make a client
        Runner.wanted_gone = node.wanted_gone       # an async runner knows better, and puts its own in place
        Runner.ask = node.ask
        steps.install()
        sealing.check()
        if os.environ.get(OTEL):
            from . import tracing  # needs the extra

            tracing.begin_runner()
        found = load_tasks(options.app)
        node.declared = set(queues.declared)
        collector.spare_imports()
        ready = Ready([task.described for task in found.values()], list(queues.declared.values()))
        if isinstance(runner, SyncRunner):
            runner.serve(Functions(found), ready)
        else:
            loop.run(runner.serve(Functions(found), ready))
    except BaseException as error:
        report = Broken(describe(error), trace_of(error))
        sock.setblocking(True)
        sock.sendall(channel.pack(report))
        return EXIT_BROKEN
    return 0


def keep_of(work: Work) -> int:
    """How many lines of a job's log are kept."""
    if work.options.keep_log is not None:
        return work.options.keep_log
    task = tasks.registry.get(work.task)
    return task.info.keep_log if task is not None else 0


def load_tasks(apps: list[str]) -> dict[str, Runnable]:
    """Import the modules that declare tasks; whatever they raise goes to the node as text."""
    search_path.complete()
    frameworks.set_up()
    for app in apps:
        importlib.import_module(app)
    return dict(tasks.registry)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rota.worker.runner.process", description=__doc__)
    parser.add_argument("--kind", choices=["sync", "async"], required=True)
    parser.add_argument("--at-once", type=int, default=sys.maxsize, help="so many async jobs may have begun at a time")
    parser.add_argument("--app", action="append", default=[], help="a module that declares tasks")
    return parser.parse_args(argv)


def _inherited() -> tuple[socket.socket, socket.socket, int, Lease, Tally]:
    """What the guard has opened: two sockets, the permits, the lease and the tally. No child of a job gets them."""
    try:
        channel_fd, questions_fd, permits, lease_fd, tally_fd = map(int, os.environ.pop(RUNNER_FDS).split(","))
        sock, questions = socket.socket(fileno=channel_fd), socket.socket(fileno=questions_fd)
        lease, tally = Lease(lease_fd), Tally(tally_fd)
    except (KeyError, ValueError, OSError) as error:
        raise errors.ConfigError("a runner is started by a node's guard, not by hand") from error
    for descriptor in (channel_fd, questions_fd, permits):
        os.set_inheritable(descriptor, False)
    return sock, questions, permits, lease, tally


def _settle() -> None:
    """What a job prints, and how it crashes, goes to the node; who stops that is the guard's business."""
    sys.stdout.flush()
    os.dup2(2, 1)
    protect_streams()
    faulthandler.enable(os.dup(2))
    stop_signals.ignore()


if __name__ == "__main__":
    sys.exit(main())
