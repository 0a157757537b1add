"""A lint of this repository: rules of the house that no off-the-shelf linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("client", "cluster", "outbox", "worker")

WALL_CLOCK = {
    "cluster/clock.py",             # the clock that everything else is given
    "worker/runner/telling.py",     # when a job said how far it is: its own process
    "client/options/checks.py",            # turns the moment a user names into a delay; when a schedule was put
    "cluster/cli/show.py",          # how long ago something was, for people
    "cluster/cli/manage/schedule.py",      # the same, and how soon
    "cluster/cli/options.py",       # a time that a person names
}
UNPICKLERS = {
    "client/calls/pickling.py",           # after the signature was checked
    "worker/",                      # user code's own process
}
ENVIRONMENT = {
    "client/wire/offload.py",            # ROTA_OFFLOAD, likewise
    "client/wire/sealing.py",            # ROTA_ENCRYPT: what pickles arguments need not load a client
    "client/settings/config.py",             # ROTA_URL, when a client is made without an address
    "cluster/cli",                  # hands the environment to the loader of settings
    "cluster/boot/launch.py",            # a child inherits it
    "cluster/boot/process.py",           # its settings come in one variable
    "cluster/testing/memory.py",    # where secrets are published, as a node's process does
    "worker/guard/guard.py",
    "worker/guard/outlet.py",           # whether lines are JSON
    "worker/runner/environment/logs.py",            # likewise
    "worker/runner/environment/frameworks.py",  # which settings Django is to load
    "worker/runner/process.py",
    "worker/runner/environment/search_path.py",
}
LATER = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
MACHINE = re.compile(r"(?<![\w.])/(work|root)/|(?<![\w.])/home/\w|pypi\.org|pythonhosted|index-url|--trusted-host")


@cache
def files() -> list[str]:
    """Everything git knows or would take, as paths from the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def modules(*folders: str) -> list[str]:
    return [name for name in files() if name.endswith(".py") and name.startswith(tuple(f"{f}/" for f in folders))]


@cache
def calls(name: str) -> list[tuple[int, str, ast.Call]]:
    """(line, dotted name of what is called, call) of every call in a file."""
    tree = ast.walk(ast.parse((ROOT / name).read_text(), name))
    return [(node.lineno, ast.unparse(node.func), node) for node in tree if isinstance(node, ast.Call)]


def allowed(name: str, places: set[str]) -> bool:
    return any(name.startswith(place) for place in places)


def test_wall_time_comes_from_the_clock() -> None:
    """Decisions take an injected clock, or the simulation could not govern them."""
    wrong = [
        f"{name}:{line}: {called}()"
        for name in modules("cluster", "worker", "client")
        if not allowed(name, WALL_CLOCK)
        for line, called, _ in calls(name)
        if called in ("time.time", "time.time_ns", "datetime.now", "datetime.datetime.now", "datetime.utcnow")
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_is_unpickled_outside_its_place() -> None:
    """Unpickling runs code: only what was signed is unpickled, and never in a node's own process."""
    wrong = [
        f"{name}:{line}: {called}()"
        for name in modules(*ROOMS)
        if not allowed(name, UNPICKLERS)
        for line, called, _ in calls(name)
        if re.fullmatch(r"(pickle|cloudpickle|marshal|shelve|dill)\.(load|loads|open|Unpickler)|eval|exec", called)
    ]
    assert not wrong, "\n".join(wrong)


def test_text_leaves_for_a_terminal_in_one_place() -> None:
    """There it is escaped: whoever wrote a job's error must not drive an operator's terminal."""
    wrong = [
        f"{name}:{line}: {called}()"
        for name in modules("cluster/cli", "cluster/demo", "cluster/admin", "cluster/node")
        for line, called, _ in calls(name)
        if called in ("print", "Console", "Text", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write")
    ]
    assert not wrong, "\n".join(wrong)


def test_the_environment_is_read_in_few_places() -> None:
    wrong = [
        f"{name}: reads the environment"
        for name in modules(*ROOMS)
        if not allowed(name, ENVIRONMENT) and re.search(r"\bos\.(environ|getenv)\b", (ROOT / name).read_text())
    ]
    assert not wrong, "\n".join(wrong)


def test_every_background_task_has_a_name() -> None:
    """A warning or a stack dump that says `Task-17` helps nobody."""
    wrong = [
        f"{name}:{line}: create_task without name="
        for name in modules(*ROOMS)
        for line, called, call in calls(name)
        if called.endswith("create_task") and not any(keyword.arg == "name" for keyword in call.keywords)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("pattern", "why"), [
    (LATER, "finish it, or open an issue"),
    (MACHINE, "no path of a machine and no host of a package index belongs into the repository"),
])
def test_no_file_says(pattern: re.Pattern[str], why: str) -> None:
    wrong = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in files()
        if ROOT / name != Path(__file__)
        if pattern.search(text(name))       # most say it nowhere
        for number, line in enumerate(text(name).splitlines(), 1)
        if pattern.search(line)
    ]
    assert not wrong, why + "\n" + "\n".join(wrong)


@cache
def text(name: str) -> str:
    try:
        return (ROOT / name).read_text()
    except UnicodeDecodeError:
        return ""                   # a picture


WRITTEN_BY_HAND = {
    "cluster/telemetry/chronicle.py": {"self._keys.seen_asked", "key"}, # for people who look
    "cluster/master/election/election.py": {"self.key", "record.key"},           # candidates
    "cluster/node/membership/membership.py": {"key"},                              # a member
    "cluster/node/membership/own_record.py": {"identity.key", "self._identity.key"},
    "cluster/node/service.py": {"context.keys.function(digest)"},
    "cluster/node/membership/registration.py": {"key"},                            # tasks
    "cluster/admin/outboxes.py": {"key"},                               # whose turn it is to move rows
    "cluster/admin/operations.py": {"key"},                             # settings of queues
    "cluster/admin/schedules.py": {"self._keys.schedule(name)", "self._keys.template(name)"},
    "cluster/state/flows.py": {
        "keys.section_open(section)", "keys.section_open(terms.section)", "keys.flow(terms.id)", "at",
        "keys.graph(terms.id, terms.section)", "at.key", "sections", "keys.flow_ended(flow)",
    },
    "cluster/master/duties/sweeping.py": {"keys.graphs_of(name)"},             # what is left of flows
    "cluster/node/running/shown.py": {"context.keys.running_on(context.node)"},
    "cluster/admin/bulk.py": {"key"},                                   # bulk operations
    "cluster/master/duties/bulk.py": {"key"},
    "cluster/master/duties/operation.py": {"self._key", "self._keys.operation_ended(name)"},
    "cluster/state/discarding.py": {"self._keys.cancel(bundle, index)"},    # requests to cancel
    "cluster/node/claims/settlement.py": {"op.key"},                           # leases put to what moves made
    "cluster/node/outcomes/progress.py": {"keys.log_of(*self.name)", "key"},    # how far jobs are, and their logs
    "cluster/state/nonempty.py": {"flag_of(op.key)"},                   # flags of queues
    "cluster/master/duties/flags.py": {"key", "self._keys.flag(name)"},
    "cluster/master/duties/lending.py": {"self._key"},                  # what the master lends
    "cluster/master/carrying_out.py": {"command.key"},                  # how far a rate may be used
    "cluster/cli/manage/reset.py": {"records[0].key"},                         # everything, with no node left
}
"""Keys that are put or deleted outside the ledger and the moves. None of them is that of a token."""


def test_whoever_writes_tokens_puts_the_flags_of_their_queues() -> None:
    """All writes go through `Commits`; they are made in one place, so that none forgets the flags."""
    made = {name for name in modules("cluster") for _, called, _ in calls(name) if called == "Commits"}
    assert made == {"cluster/state/nonempty.py"}


def test_tokens_are_moved_by_the_moves() -> None:
    """Nobody else writes below jobs/, scheduled/, claims/ or failed/: the states of a job are drawn in one place."""
    found: dict[str, set[str]] = {}
    for name in modules("cluster", "worker", "client"):
        if name.startswith(("cluster/ledger/", "cluster/state/moves/")):
            continue
        for _, called, call in calls(name):
            if called.rpartition(".")[2] in ("Put", "Delete"):
                found.setdefault(name, set()).add(ast.unparse(call.args[0]))
    assert found == WRITTEN_BY_HAND


def test_watches_are_followed() -> None:
    """A watch alone loses its place at a compaction: `ledger/follow` lists again."""
    places = {"cluster/ledger/", "cluster/master/term.py", "cluster/demo/"}    # a term starts over; a demo is short
    wrong = [
        f"{name}:{line}: {called}()"
        for name in modules("cluster")
        if not allowed(name, places)
        for line, called, _ in calls(name)
        if called.endswith("edger.watch")
    ]
    assert not wrong, "\n".join(wrong)


def test_no_room_of_leftovers() -> None:
    names = [name for name in files() if Path(name).stem in ("utils", "util", "common", "helpers", "misc", "base")]
    assert not names, f"a module is one noun: {names}"
