"""`make docs`: writes reference.md from the docstrings of what `import rota` gives. `--check` says if it is current."""

from __future__ import annotations

import logging
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("reference.md")

GROUPS = {
    "Declaring work": ("task", "Task", "SyncTask", "AsyncTask", "Worker", "Queue", "Call", "NamedTask"),
    "Enqueueing and waiting": ("connect", "Client", "AsyncClient", "JobHandle", "JobHandles"),
    "Flows": ("flow", "Flow", "FlowHandle", "FlowView", "flow_handle", "current_flow"),
    "Inside a job": ("current_job", "progress", "touch", "check_cancelled", "Cancelled", "Retry", "Snooze"),
    "Hooks": ("on_runner_start", "on_runner_stop", "on_error"),
    "Around jobs": ("before_enqueue", "Outgoing", "around_job", "JobContext", "Depends"),
    "Retry schedules": ("backoff",),
}
ERRORS = "Errors"
INTERNAL = {
    "acancel_job", "ajob", "alog", "anews", "news",
    "aflow_deed", "aflow_entries", "aflow_view", "astore_flow", "flow_deed", "flow_entries", "flow_view", "store_flow",
    "graph", "orders", "send", "take", "take_many",
    "aoutcomes", "aplace", "aplace_many", "aresult", "attempts", "cancel_job", "check",
    "described", "destination", "dress", "is_bare", "key_of", "models", "signature",
    "order", "outcomes", "place", "place_many", "result_of", "retry_decision", "unique_of", "with_marks", "with_unique",
}
"""Members that rota's own rooms share, and that applications have no use for."""

HEAD = """\
# API reference

What `import rota` gives, from its docstrings (`make docs` writes this page). Names that begin with an underscore, and
modules that are not on this page, may change at any time. `rota.testing` is in [testing.md](testing.md).
"""


def page() -> str:
    logging.getLogger("griffe").setLevel(logging.ERROR)
    package = griffe.load("rota", search_paths=[ROOT / ".types"], docstring_parser="google")
    names = {name: resolved(package[name]) for name in sorted(package.exports or ())}
    blocks = [HEAD]
    groups = dict(GROUPS)
    placed = {name for group in groups.values() for name in group}
    groups[ERRORS] = tuple(name for name in names if name not in placed and is_error(names[name]))
    groups["Further names"] = tuple(name for name in names if name not in placed and name not in groups[ERRORS])
    for title, members in groups.items():
        if members:
            blocks.append(f"## {title}\n")
            blocks += [block for name in members if name in names for block in entry(name, names[name])]
    return "\n".join(blocks).rstrip() + "\n"


def resolved(found: griffe.Object | griffe.Alias) -> griffe.Object:
    target = found.final_target if isinstance(found, griffe.Alias) else found
    assert isinstance(target, griffe.Object)
    return target


def is_error(found: griffe.Object) -> bool:
    return found.path.startswith("rota.client.errors.")


def entry(name: str, found: griffe.Object) -> Iterator[str]:
    yield f"### `rota.{name}`\n"
    if isinstance(found, griffe.Function):
        yield code(f"rota.{signature(name, found)}")
    elif isinstance(found, griffe.Class) and not is_error(found) and "__init__" in members(found):
        yield code(f"rota.{signature(name, members(found)['__init__'])}")
    elif isinstance(found, griffe.Class) and found.bases:
        yield f"A kind of {', '.join(f'`{base}`' for base in found.bases)}.\n"
    yield from described(found)
    if isinstance(found, griffe.Class | griffe.Module):
        for method, member in sorted(members(found).items()):
            if not method.startswith("_") and method not in INTERNAL:
                yield from detail(f"{name}.{method}", method, resolved(member))


def members(found: griffe.Class | griffe.Module) -> dict[str, griffe.Object | griffe.Alias]:
    """Its own, and those of bases that have no entry themselves."""
    if isinstance(found, griffe.Module):
        return {name: member for name, member in found.members.items() if not member.is_imported}
    own = dict(found.members)
    for base in found.resolved_bases:
        if base.name not in ("Task", "RotaError") and isinstance(base, griffe.Class):
            own = members(base) | own
    return own


def detail(path: str, name: str, found: griffe.Object) -> Iterator[str]:
    if isinstance(found, griffe.Function):
        prefix = "async " if "async" in found.labels else ""
        yield f"#### `{path}`\n"
        yield code(prefix + signature(name, found))
        yield from described(found)
    elif isinstance(found, griffe.Attribute) and "property" in found.labels:
        yield f"#### `{path}`\n"
        yield code(f"{name}: {found.annotation}")
        yield from described(found)


def signature(name: str, found: griffe.Object | griffe.Alias) -> str:
    """As it would be written, one parameter a line where it is long."""
    function = resolved(found)
    assert isinstance(function, griffe.Function)
    parts, starred = [], False
    for parameter in function.parameters:
        if parameter.name in ("self", "cls"):
            continue
        kind = parameter.kind
        if kind is griffe.ParameterKind.keyword_only and not starred:
            parts.append("*")
        starred = starred or kind in (griffe.ParameterKind.keyword_only, griffe.ParameterKind.var_positional)
        stars = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(kind, "")
        text = stars + parameter.name + (f": {parameter.annotation}" if parameter.annotation is not None else "")
        parts.append(text + (f" = {parameter.default}" if parameter.default is not None and not stars else ""))
    answer = f" -> {function.returns}" if function.returns is not None and function.name != "__init__" else ""
    line = f"{name}({', '.join(parts)}){answer}"
    return line if len(line) <= 100 else f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){answer}"


def described(found: griffe.Object) -> Iterator[str]:
    if found.docstring is None:
        return
    for section in found.docstring.parsed:
        match section:
            case griffe.DocstringSectionText():
                yield textwrap.dedent(section.value).strip() + "\n"
            case griffe.DocstringSectionParameters() | griffe.DocstringSectionRaises():
                rows = [
                    f"| `{getattr(row, 'name', None) or row.annotation}` | {' '.join(row.description.split())} |"
                    for row in section.value
                ]
                head = "raises" if isinstance(section, griffe.DocstringSectionRaises) else "parameter"
                yield "\n".join([f"| {head} | |", "|---|---|", *rows]) + "\n"
            case griffe.DocstringSectionReturns():
                yield f"Returns: {' '.join(row.description for row in section.value)}\n"
            case griffe.DocstringSectionAdmonition():
                yield f"**{section.title}** {section.value.contents}\n"
            case _:
                raise ValueError(f"{found.path}: a section of its docstring is not known here: {section.kind}")


def code(text: str) -> str:
    return f"```python\n{text}\n```\n"


def main() -> int:
    text = page()
    if "--check" in sys.argv[1:]:
        current = PAGE.exists() and PAGE.read_text() == text
        print("docs/reference.md is current" if current else "docs/reference.md is not current: run `make docs`")
        return 0 if current else 1
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
