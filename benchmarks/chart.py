"""The picture: two panels of bars as SVG, written by hand so that it needs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from .floor import Floor
from .measure import ROLES, Figures

WIDTH, LABEL, BAR, GAP, TOP = 860, 300, 18, 8, 46
COLOURS = {"client": "#4c78a8", "node": "#f58518", "runner": "#54a24b", "guard": "#b279a2", "etcd": "#9d9da1"}


def draw(figures: Sequence[Figures], floor: Floor, caption: str) -> str:
    rates = [(row.title, row.rate, "#f58518") for row in figures if row.by != "latency"]
    rates += [
        ("bare etcd: puts, 128 a transaction", floor.grouped_put_s, "#9d9da1"),
        ("bare etcd: puts, one at a time", floor.put_s, "#9d9da1"),
    ]
    costs = [
        (row.title, [(row.cpu_us[role], COLOURS[role]) for role in ROLES]) for row in figures if row.by != "latency"
    ]
    bars = [(title, [(value, colour)]) for title, value, colour in rates]
    return sheet([("jobs per second", bars), ("CPU per job, microseconds", costs)], COLOURS, caption)


Bars = Sequence[tuple[str, Sequence[tuple[float, str]]]]


def sheet(panels: Sequence[tuple[str, Bars]], colours: Mapping[str, str], caption: str) -> str:
    """Panels one below the other, what their colours mean, and a line below."""
    drawn, y = "", -20
    for title, bars in panels:
        one, y = _panel(title, bars, y + 20)
        drawn += one
    step = (WIDTH - LABEL) // max(len(colours), 6 if len(colours) > 3 else 3)
    legend = "".join(
        f'<rect x="{LABEL + step * number}" y="{y}" width="12" height="12" fill="{colour}"/>'
        f'<text x="{LABEL + step * number + 17}" y="{y + 11}">{escape(name)}</text>'
        for number, (name, colour) in enumerate(colours.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 50}" viewBox="0 0 {WIDTH} {y + 50}" '
        'font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="white"/>'
        f'{drawn}{legend}<text x="10" y="{y + 38}" fill="#555" font-size="11">{escape(caption)}</text></svg>\n'
    )


def _panel(title: str, bars: Bars, top: int) -> tuple[str, int]:
    """The panel, and where it ends."""
    largest = max((sum(value for value, _ in parts) for _, parts in bars), default=1.0) or 1.0
    scale = (WIDTH - LABEL - 90) / largest
    drawn = [f'<text x="10" y="{top + 26}" font-size="16" font-weight="bold">{escape(title)}</text>']
    y = top + TOP
    for label, parts in bars:
        drawn.append(f'<text x="{LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(label)}</text>')
        x = float(LABEL)
        for value, colour in parts:
            drawn.append(f'<rect x="{x:.1f}" y="{y}" width="{value * scale:.1f}" height="{BAR}" fill="{colour}"/>')
            x += value * scale
        drawn.append(f'<text x="{x + 6:.1f}" y="{y + 14}">{sum(value for value, _ in parts):,.0f}</text>')
        y += BAR + GAP
    return "".join(drawn), y
