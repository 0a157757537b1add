"""Views as tables for people, or as JSON for programs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import msgspec

from rota.client.wire.views import (
    AttemptView,
    FailedView,
    FinishedView,
    JobEvent,
    JobView,
    LogView,
    NodeView,
    OperationView,
    ProgressView,
    QueueView,
    StepView,
)

from ..terminal import Sheet, complain, say, say_json, say_json_line


def as_json(view: object, **more: object) -> None:
    """Every field, also those that have their default: a program should not have to know defaults."""
    fields = _all_fields(view)
    if isinstance(fields, dict):
        fields |= more
    say_json(fields)


def as_json_line(view: object) -> None:
    """One of many: a line for each."""
    say_json_line(_all_fields(view))


def _all_fields(view: object) -> object:
    """`omit_defaults` is for the wire."""
    if isinstance(view, msgspec.Struct):
        return {name: _all_fields(getattr(view, name)) for name in view.__struct_fields__}
    return [_all_fields(item) for item in view] if isinstance(view, list) else view


def nodes(views: Sequence[NodeView]) -> None:
    table = Sheet("node", "state", "address", "queues", "tasks>", "sync>", "async>", "claims>", "up>", "keys")
    names = _key_names(views)
    for view in sorted(views, key=lambda view: view.since):
        state, style = ("master", "bold") if view.master and view.state == "active" else (view.state, "")
        table.add(
            (view.node, style),
            (state, style),
            view.address,
            "all" if view.queues == ["*"] else ", ".join(view.queues),
            *(f"{number:,}" for number in (
                len(view.tasks), view.capacity.get("sync", 0), view.capacity.get("async", 0), view.claims
            )),
            span(time.time() - view.since),
            "?" if view.keys is None else ", ".join(names[mark] for mark in view.keys) or "none",
        )
    table.show("no node")


def _key_names(views: Sequence[NodeView]) -> dict[str, str]:
    """Keys by their ids; with fingerprints where several have one id."""
    marks = {mark for view in views for mark in view.keys or ()}
    ids = [mark.partition("#")[0] for mark in marks]
    return {mark: mark if ids.count(mark.partition("#")[0]) > 1 else mark.partition("#")[0] for mark in marks}


COUNTED = ("waiting", "claimed", "running", "scheduled", "awaiting", "failed")


def queues(views: Sequence[QueueView]) -> None:
    table = Sheet("queue", "waiting>", "claimed>", "running>", "scheduled>", "awaiting>", "failed>", "oldest>", "state")
    for view in views:
        counts = {name: getattr(view, name) for name in COUNTED}
        numbers = [f"{count:,}{'+' if name in view.at_least else ''}" for name, count in counts.items()]
        table.add(view.queue, *numbers, "" if view.oldest_s is None else span(view.oldest_s), _state(view))
    table.show("no queue has jobs or settings")
    for view in views:
        if view.blocked:
            say(f"queue {view.queue}: {view.why}")


def _state(view: QueueView) -> str:
    words = ["paused"] if view.paused else []
    words += ["blocked"] if view.blocked else []
    words += ["serial"] if view.serial else []
    words += [f"at most {view.max_concurrency:,} at a time"] if view.max_concurrency else []
    words += [f"at most {view.rate}"] if view.rate else []
    words += [f"at most {view.max_waiting:,} wait"] if view.max_waiting else []
    return ", ".join(words)


def failed(views: Sequence[FailedView]) -> None:
    table = Sheet("job", "task", "queue", "attempts>", "node", "when", "error")
    for view in views:
        table.add(
            view.id, view.task, view.queue, str(view.attempts), view.node,
            "" if view.reason == "blocked" else f"{span(time.time() - view.failed_at)} ago", _first_line(view.error),
        )
    table.show("no failed jobs")
    for view in views:
        if view.reason == "blocked":
            say(
                f"job {view.id} blocks serial queue {view.queue}: `rota queue retry-head {view.queue}` runs it again, "
                f"`rota queue skip-head {view.queue}` leaves it out"
            )


def more(views: Sequence[object], limit: int) -> None:
    """Nothing is cut in silence."""
    if len(views) > limit:
        complain(f"there are more than these {limit:,}: --limit shows more")


def jobs(views: Sequence[JobView]) -> None:
    table = Sheet("job", "place", "task", "queue", "attempt>", "node", "since", "error")
    for view in views:
        since = view.began_at or view.finished_at or view.enqueued_at
        when = _due(view.due) if view.due else ago(since)
        table.add(
            view.id, view.place, view.task, view.queue, str(view.attempt or ""), view.node, when,
            _first_line(view.error),
        )
    table.show("no such jobs")


def finished(views: Sequence[FinishedView]) -> None:
    table = Sheet("job", "task", "queue", "attempts>", "node", "when")
    for view in views:
        table.add(
            view.id, view.task, view.queue, str(view.attempts), view.node,
            f"{span(time.time() - view.finished_at)} ago",
        )
    table.show("no finished jobs are kept")


def operations(views: Sequence[OperationView]) -> None:
    table = Sheet("operation", "what", "state", "done>", "of>", "left>", "begun", "why")
    for view in views:
        table.add(
            view.id, f"{view.verb} {view.what}", view.state, f"{view.count:,}", f"{view.total:,}",
            f"{view.left:,}" if view.left else "", ago(view.started_at), view.why,
        )
    table.show("no operation goes on, and none ended within the hour")


def call(args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
    """A call as one would write it."""
    return f"({', '.join([*map(repr, args), *(f'{name}={value!r}' for name, value in kwargs.items())])})"


def job(view: JobView, arguments: str = "") -> None:
    facts = {
        "task": view.task,
        "arguments": arguments,
        "queue": view.queue,
        "attempt": str(view.attempt) if view.attempt else "",
        "node": view.node,
        "enqueued": ago(view.enqueued_at),
        "began": ago(view.began_at),
        "due": _due(view.due),
        "finished": ago(view.finished_at),
        "progress": progress(view.progress) if view.progress is not None else "",
        "why": view.why,
        "error": view.error,
    }
    say((view.id, "bold"), " is ", (view.place, "bold"))
    for name, fact in facts.items():
        if fact:
            say(f"  {name:10}{fact}")
    _history(view.history)
    _steps(view.steps)
    if view.traceback:
        say(("\n" + view.traceback.rstrip(), "dim"), lines=True)


def progress(view: ProgressView) -> str:
    """12 of 40 (30 %): importing"""
    text = f"{view.done:,g}" + (f" of {view.total:,g}" if view.total is not None else "")
    if view.fraction is not None:
        text += f" ({view.fraction:.0%})"
    return f"{text}: {view.note}" if view.note else text


def event(one: JobEvent) -> None:
    """A line for each thing that happens to a job."""
    if one.progress is not None:
        what = f"progress  {progress(one.progress)}"
    elif one.line is not None:
        what = f"{one.line.level.lower():8}  {one.line.text}"
    else:
        what = f"{one.place}  {one.why}" + (f"; on {one.node}" if one.node else "")
    say((_clock(one.at), "dim"), "  ", what)


def log(view: LogView) -> None:
    if not view.lines:
        say("nothing is kept of its log: see keep_log")
    elif view.dropped:
        say((f"{view.dropped:,} lines before these are not kept", "dim"))
    for line in view.lines:
        say((_clock(line.at), "dim"), f"  {line.level:8}{line.text}")


def _steps(steps: Sequence[StepView]) -> None:
    """What the job remembers."""
    if not steps:
        return
    say("")
    table = Sheet("step", "began", "ended", "took>", "bytes>")
    for one in steps:
        took_s = max(one.ended_at - one.began_at, 0.0)
        took = f"{took_s:.3f} s" if took_s < 10 else span(took_s)
        size = f"{one.bytes:,}" if one.kind == "step" else "sleep"
        table.add(one.name, _clock(one.began_at), _clock(one.ended_at), took, size)
    table.show("")


def _history(attempts: Sequence[AttemptView]) -> None:
    """Every attempt: where, from when to when, and how it ended."""
    if not attempts:
        return
    say("")
    table = Sheet("attempt>", "node", "began", "ended", "outcome")
    for one in attempts:
        table.add(str(one.attempt), one.node, _clock(one.began_at), _clock(one.ended_at), one.outcome)
    table.show("")


def _clock(moment: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment)) if moment else ""


def span(seconds: float) -> str:
    """12 s, 3 min, 5 h, 2 d"""
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def ago(moment: float | None) -> str:
    return f"{span(time.time() - moment)} ago" if moment else ""


def _due(moment: float | None) -> str:
    if not moment:
        return ""
    wait = moment - time.time()
    return f"in {span(wait)}" if wait > 0 else "now"


def _first_line(text: str) -> str:
    return text.strip("\n").partition("\n")[0]
