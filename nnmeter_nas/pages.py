"""Web pages that need no other file: text, tables, and the axes of charts drawn as SVG."""

from __future__ import annotations

import base64
import hashlib
import html
import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import resources
from string import Template
from typing import NamedTuple

#: Ticks of an axis, about.
_TICKS = 6
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

Scale = Callable[[float], float]


class Frame(NamedTuple):
    """A chart in units of its view box: its size, and the edges of what is within its axes."""

    width: float = 640
    height: float = 400
    left: float = 88
    top: float = 12
    right: float = 626
    bottom: float = 350


def web_page(title: str, lead: str, body: str) -> str:
    """Make a page of a title (text), what introduces it and its body (both HTML); only our script can run.

    The script makes tables sortable and shows the titles of points beside them.
    """
    data = resources.files("nnmeter_nas") / "data"
    script = (data / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template((data / "report.html").read_text(encoding="utf-8")).substitute(
        title=escaped(title),
        script=script,
        script_hash=f"sha256-{digest}",
        lead=lead,
        body=body,
    )


def escaped(value: object) -> str:
    """Return ``value`` as text for an HTML page, without markup and with valid characters only."""
    return html.escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(value)))


def figure(value: float, zeros: bool = False) -> str:
    """Format a number with four digits, large ones in thousands (k), millions (M) and billions (G).

    ``zeros`` keeps zeros at the end, so that numbers in a column have equally many decimals.

    >>> figure(3.14159), figure(320_400_000), figure(0.5), figure(0.5, zeros=True)
    ('3.142', '320.4 M', '0.5', '0.5000')
    """
    for unit, size, least in (("G", 1e9, 1e9), ("M", 1e6, 1e6), ("k", 1e3, 1e4)):
        if abs(value) >= least:
            return f"{figure(value / size, zeros)} {unit}"
    return f"{value:#.4g}".rstrip(".") if zeros else f"{value:.4g}"


#: Four digits, so that the numbers of a column line up.
_padded = partial(figure, zeros=True)


def cards(figures: Iterable[tuple[str, str, str]]) -> str:
    """Make cards of a title, a value and a remark each."""
    shown = "\n".join(
        f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}<small>{escaped(remark)}</small></dd></div>"
        for name, value, remark in figures
    )
    return f'<dl class="cards">\n{shown}\n</dl>'


def section(title: str, *parts: str) -> str:
    """Make a section of HTML parts under a title."""
    return "\n".join([f"<section>\n<h2>{title}</h2>", *parts, "</section>"])


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    kind: str = "",
    under: Iterable[str] = (),
    attributes: Iterable[str] = (),
    foot: str = "",
) -> str:
    """Make a table that scrolls on its own if it is wider than the page.

    Args:
        head: names of the columns.
        rows: cells, as HTML.
        caption: caption of the table.
        kind: HTML class of the table.
        under: what to write below each row, across all columns, as HTML.
        attributes: attributes of each row with what is below it, as HTML.
        foot: a last row, as HTML.
    """
    cells = []
    for column, name in enumerate(head):
        kind_of = ' class="number"' if rows and rows[0][column].startswith('<td class="number"') else ""
        cells.append(f'<th scope="col"{kind_of}>{breakable(name)}</th>')
    lines = [f"<tr>{''.join(row)}</tr>" for row in rows]
    below = [f'<tr class="under"><td colspan="{len(head)}">{text}</td></tr>' for text in under]
    # A row and what is below it are a body of their own, so that they stay together when sorted.
    bodies = list(map("".join, zip(lines, below, strict=True))) if below else ["\n".join(lines)]
    parts = [
        f"<caption><span>{escaped(caption)}</span></caption>" if caption else "",
        f"<thead><tr>{''.join(cells)}</tr></thead>",
        *(
            f"<tbody{more}>\n{body}\n</tbody>"
            for body, more in zip(bodies, list(attributes) or [""] * len(bodies), strict=True)
        ),
        f"<tfoot>{foot}</tfoot>" if foot else "",
    ]
    style = f' class="{kind}"' if kind else ""
    made = f"<table{style}>{''.join(parts)}</table>"
    name = escaped(caption or head[0])
    return f'<div class="wide" role="region" tabindex="0" aria-label="{name}">{made}</div>'


def breakable(name: str) -> str:
    """Return a name as HTML that may break after underscores, as the names of devices are long."""
    return escaped(name).replace("_", "_<wbr>")


def number(
    value: float | None,
    words: Callable[[float], str] = _padded,
    remarks: Iterable[str] = (),
    more: str = "",
) -> str:
    """Make a cell: a number as ``words`` writes it, remarks below it, and more HTML."""
    if value is None:
        return '<td class="number" data-value=""></td>'
    small = "".join(f"<small>{escaped(remark)}</small>" for remark in remarks)
    return f'<td class="number" data-value="{value}">{words(value)}{small}{more}</td>'


def ticks(low: float, high: float) -> list[float]:
    """Return evenly spaced round numbers from ``low`` to ``high``.

    >>> ticks(0.0, 10.0)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def scale(low: float, high: float, start: float, end: float) -> Scale:
    """Return a linear scale that maps ``low`` to ``start`` and ``high`` to ``end``."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def numbered(low: float, high: float) -> list[tuple[float, str]]:
    """Return ticks and their labels, with as many decimals as are needed to tell the labels apart."""
    values = ticks(low, high)
    step = values[1] - values[0] if len(values) > 1 else abs(high - low)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(v, figure(v) if abs(high) >= 1e4 else f"{v:.{decimals}f}") for v in values]


def chart(frame: Frame, label: str, parts: Iterable[str]) -> str:
    """Make an SVG element of ``parts``; ``label`` says what it shows."""
    opening = f'<svg class="chart" viewBox="0 0 {frame.width:g} {frame.height:g}" role="group"'
    return "\n".join([f'{opening} aria-label="{escaped(label)}">', *parts, "</svg>"])


def captioned(drawn: str, keys: Iterable[tuple[str, str]]) -> str:
    """Make a figure of a chart and its legend: the HTML class of each mark, and what it stands for."""
    legend = "".join(f"<span>{_key(kind)} {escaped(words)}</span>" for kind, words in keys)
    return f"<figure>{drawn}\n<figcaption>{legend}</figcaption></figure>"


def _key(kind: str) -> str:
    """Draw a legend mark: of points, of a band, of an interval or of a line."""
    if kind.startswith("point"):
        mark = f'<g class="{kind}"><circle r="6"/></g>'
    elif kind == "band":
        mark = '<rect class="band" x="-8" y="-8" width="16" height="16"/>'
    else:
        across = "M0 -8V8" if kind == "interval" else "M-8 0H8"
        mark = f'<path class="{kind}" d="{across}"/>'
    return f'<svg class="key" viewBox="-8 -8 16 16" aria-hidden="true">{mark}</svg>'


def bar(share: float) -> str:
    """Draw a bar that fills ``share`` of its cell."""
    return (
        f'<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{100 * share:.2f}" height="8"/></svg>'
    )


def axes(
    frame: Frame,
    across: Iterable[tuple[float, str]],
    up: Iterable[tuple[float, str]],
    x_title: str,
    y_title: str,
) -> list[str]:
    """Draw the grid lines, their numbers and the titles of both axes.

    Args:
        frame: the chart.
        across, up: where a line is, and its number.
        x_title, y_title: what the axes show.
    """
    parts = []
    for x, words in across:
        parts.append(
            f'<path class="grid" d="M{x:.1f} {frame.top}V{frame.bottom}"/>'
            f'<text x="{x:.1f}" y="{frame.bottom + 17}" text-anchor="middle">{escaped(words)}</text>'
        )
    for y, words in up:
        parts.append(
            f'<path class="grid" d="M{frame.left} {y:.1f}H{frame.right}"/>'
            f'<text x="{frame.left - 7}" y="{y + 4:.1f}" text-anchor="end">{escaped(words)}</text>'
        )
    middle = (frame.top + frame.bottom) / 2
    return [
        *parts,
        f'<text class="title" x="{(frame.left + frame.right) / 2}" y="{frame.height - 10}" '
        f'text-anchor="middle">{escaped(x_title)}</text>',
        f'<text class="title" x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">'
        f"{escaped(y_title)}</text>",
    ]
