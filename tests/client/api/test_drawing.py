"""A flow drawn: as text, as DOT and as Mermaid."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from rota.client.api import drawing
from rota.client.wire.views import FLOW_JOB_STATES, FlowJobState, FlowPartView, FlowView

EVIL = 'x"]\x1b[31m\u202e<b>\\ {#}\nforged'


def flow(*parts: FlowPartView, name: str = "import") -> FlowView:
    return FlowView("k3f9q2m7xa5t-00000000", name, "running", sum(len(part.ids) for part in parts), 0.0,
                    parts=list(parts))


def part(task: str, *states: FlowJobState, after: tuple[int, ...] = (), queue: str = "default") -> FlowPartView:
    return FlowPartView(task, queue, [f"{task}_{number}" for number in range(len(states))], list(states), list(after))


IMPORT = flow(
    part("m:fetch", *["ok"] * 60), part("m:fetch", *["ok"] * 4, "running"),     # two bundles of one call
    part("m:clean", "failed"), part("m:sum", "awaiting", after=(0, 1)), part("m:mail", "awaiting", after=(2, 3)),
)


def test_as_text() -> None:
    assert drawing.as_text(IMPORT).splitlines() == [
        "◐ 1 m:fetch ×65   64 ok, 1 running",
        "✗ 2 m:clean       failed",
        "  └ · 3 m:sum     awaiting  after 1",
        "    └ · 4 m:mail  awaiting  after 2, 3",
    ]


def test_as_dot() -> None:
    assert drawing.as_dot(IMPORT).splitlines() == [
        'digraph "import" {',
        "  rankdir=LR;",
        "  node [shape=box, style=rounded];",
        '  n1 [label="m:fetch ×65\\n64 ok, 1 running", color="#2563c9"];',
        '  n2 [label="m:clean\\nfailed", color="#c2362b"];',
        '  n3 [label="m:sum\\nawaiting", color="#7a7f87"];',
        '  n4 [label="m:mail\\nawaiting", color="#7a7f87"];',
        "  n1 -> n3;",
        "  n2 -> n4;",
        "  n3 -> n4;",
        "}",
    ]


def test_as_mermaid() -> None:
    assert drawing.as_mermaid(IMPORT).splitlines() == [
        "flowchart LR",
        '  n1["m:fetch ×65<br/>64 ok, 1 running"]:::running',
        '  n2["m:clean<br/>failed"]:::failed',
        '  n3["m:sum<br/>awaiting"]:::awaiting',
        '  n4["m:mail<br/>awaiting"]:::awaiting',
        "  n1 --> n3",
        "  n2 --> n4",
        "  n3 --> n4",
        "  classDef running stroke:#2563c9",
        "  classDef awaiting stroke:#7a7f87",
        "  classDef failed stroke:#c2362b",
    ]


def test_what_is_alike_is_one_box_and_nothing_else() -> None:
    """Another queue, other jobs before it, or another rule for what does not end well: another box."""
    boxes = drawing.boxes(flow(
        part("m:a", "ok"), part("m:b", "ok"), part("m:c", "waiting", after=(0,)), part("m:c", "waiting", after=(1,)),
        part("m:c", "waiting", after=(0,), queue="other"),
        FlowPartView("m:c", "default", ["id"], ["waiting"], [0], "run"), part("m:c", "claimed", after=(0,)),
    ))
    assert [(box.task, box.queue, box.after, box.count) for box in boxes] == [
        ("m:a", "default", (), 1), ("m:b", "default", (), 1), ("m:c", "default", (0,), 2), ("m:c", "default", (1,), 1),
        ("m:c", "other", (0,), 1), ("m:c", "default", (0,), 1),
    ]


@pytest.mark.parametrize("state", FLOW_JOB_STATES)
def test_every_state_has_a_mark_and_a_colour(state: FlowJobState) -> None:
    seen = flow(part("m:f", state))
    assert drawing.as_text(seen) == f"{drawing.MARKS[state]} 1 m:f  {state}"
    assert f'color="{drawing.COLOURS[state]}"' in drawing.as_dot(seen)
    assert f"]:::{state}" in drawing.as_mermaid(seen) and f"classDef {state} " in drawing.as_mermaid(seen)


def test_nothing_in_it_can_pass_for_more_than_a_name() -> None:
    seen = flow(part(EVIL, "ok"), name=EVIL)
    text, dot, mermaid = drawing.as_text(seen), drawing.as_dot(seen), drawing.as_mermaid(seen)
    assert len(text.splitlines()) == 1 and len(dot.splitlines()) == 5 and len(mermaid.splitlines()) == 3
    for drawn in (text, dot, mermaid):
        assert "\x1b" not in drawn and "\u202e" not in drawn
    strings = re.findall(r'"(?:[^"\\]|\\.)*"', dot)
    assert len(strings) == 3 and dot.count('"') == 6 + sum(inner.count('\\"') for inner in strings)
    (label,) = re.findall(r'\["(.*)"\]:::ok', mermaid)
    assert not set('"<>[]{}') & set(label.replace("<br/>", ""))


def test_a_long_one_is_cut_and_says_so() -> None:
    lines = drawing.as_text(flow(*[part(f"m:f{number}", "ok") for number in range(drawing.LINES_MAX + 7)])).splitlines()
    assert len(lines) == drawing.LINES_MAX + 1 and lines[-1] == "… and 7 more"
    assert drawing.as_text(flow()) == ""


@pytest.mark.skipif(shutil.which("dot") is None, reason="no Graphviz")
def test_graphviz_reads_it() -> None:
    for seen in (IMPORT, flow(part(EVIL, "ok"), name=EVIL)):
        drawn = drawing.as_dot(seen)
        done = subprocess.run(["dot", "-Tplain"], input=drawn, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0 and done.stdout.count("\nnode ") == len(drawing.boxes(seen)), done.stderr
