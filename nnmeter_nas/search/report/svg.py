"""Draw the Pareto chart of a report as SVG, without a library; its points show their architectures."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable

from .outcome import SearchReport, figure
from .plot import axis_range
from .trials import Trial

#: Size of a chart in units of its view box, and its margins.
_WIDTH, _HEIGHT = 640, 400
_LEFT, _TOP, _RIGHT, _BOTTOM = 88, 12, 14, 50
_TICKS = 6
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

Scale = Callable[[float], float]


def escaped(value: object) -> str:
    """Return ``value`` as text for an HTML page, without markup and with valid characters only."""
    return html.escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(value)))


def pareto_chart(report: SearchReport, name: str) -> str:
    """Draw the metric of each trained trial over the measure ``name``, as an SVG element.

    Trials of the front link to their row ``#trial-<number>``. The title of each point is its architecture.
    """
    low, high = axis_range(report, name)
    metrics = [trial.metric for trial in report.trained if trial.metric is not None]
    margin = 0.12 * (max(metrics) - min(metrics)) or 0.05 * abs(max(metrics)) or 0.05
    bottom, top = min(metrics) - margin, max(metrics) + margin
    x = _scale(low, high, _LEFT, _WIDTH - _RIGHT)
    y = _scale(bottom, top, _HEIGHT - _BOTTOM, _TOP)
    front = {trial.number for trial in report.front}
    # The last point drawn lies on top, so draw the best last, just after the rest of the front.
    order = sorted(report.trained, key=lambda t: (t.number in front, t.metric or 0.0))
    parts = [
        *_axes(report, name, (low, high, x), (bottom, top, y)),
        *_limits(report, name, low, high, x),
        *_steps(report, name, x, y),
        *(_point(report, trial, name, x, y, trial.number in front) for trial in order),
    ]
    label = escaped(
        f"{report.metric} over {report.title(name)}: {len(order)} architectures, {len(front)} on the front"
    )
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="group" aria-label="{label}">\n'
        + "\n".join(parts)
        + "\n</svg>"
    )


def ticks(low: float, high: float) -> list[float]:
    """Return evenly spaced round numbers from ``low`` to ``high``.

    >>> ticks(0.0, 10.0)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    """Return a linear scale that maps ``low`` to ``start`` and ``high`` to ``end``."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _axes(
    report: SearchReport, name: str, across: tuple[float, float, Scale], up: tuple[float, float, Scale]
) -> list[str]:
    """Draw the grid lines, their numbers and the titles of both axes."""
    parts = []
    floor, x, y = _HEIGHT - _BOTTOM, across[2], up[2]
    for value, words in _numbered(*across[:2]):
        parts.append(
            f'<path class="grid" d="M{x(value):.1f} {_TOP}V{floor}"/>'
            f'<text x="{x(value):.1f}" y="{floor + 17}" text-anchor="middle">{words}</text>'
        )
    for value, words in _numbered(*up[:2]):
        parts.append(
            f'<path class="grid" d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}"/>'
            f'<text x="{_LEFT - 7}" y="{y(value) + 4:.1f}" text-anchor="end">{words}</text>'
        )
    middle = (_TOP + floor) / 2
    return [
        *parts,
        f'<text class="title" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 10}" text-anchor="middle">'
        f"{escaped(report.title(name))}</text>",
        f'<text class="title" x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">'
        f"{escaped(report.metric)}</text>",
    ]


def _numbered(low: float, high: float) -> list[tuple[float, str]]:
    """Return ticks and their labels, with as many decimals as are needed to tell the labels apart."""
    values = ticks(low, high)
    step = values[1] - values[0] if len(values) > 1 else abs(high - low)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(v, figure(v) if abs(high) >= 1e4 else f"{v:.{decimals}f}") for v in values]


def _limits(report: SearchReport, name: str, low: float, high: float, x: Scale) -> list[str]:
    """Draw a dashed line for each limit within the chart, and shade the area outside the limit."""
    least, most = report.limits(name)
    height = _HEIGHT - _BOTTOM - _TOP
    parts = []
    for limit, start, end in ((least, low, least), (most, most, high)):
        if low <= limit <= high:
            parts.append(
                f'<rect class="outside" x="{x(start):.1f}" y="{_TOP}" width="{x(end) - x(start):.1f}" '
                f'height="{height}"/><path class="limit" d="M{x(limit):.1f} {_TOP}v{height}"/>'
            )
    return parts


def _steps(report: SearchReport, name: str, x: Scale, y: Scale) -> list[str]:
    """Draw the line along the front; it is a line only if the measure is the only objective."""
    if list(report.objectives) != [name]:
        return []
    corners = [(x(trial.values[name]), y(trial.metric or 0.0)) for trial in reversed(report.front)]
    path = "".join(f"H{across:.1f}V{up:.1f}" for across, up in corners[1:])
    return [f'<path class="steps" d="M{corners[0][0]:.1f} {corners[0][1]:.1f}{path}"/>']


def _point(report: SearchReport, trial: Trial, name: str, x: Scale, y: Scale, on_front: bool) -> str:
    """Draw a mark titled with the trial's architecture; a star is the best, a disc is on the front."""
    at = f"{x(trial.values[name]):.1f} {y(trial.metric or 0.0):.1f}"
    title = f"<title>{escaped(described(report, trial))}</title>"
    place = f'data-trial="{trial.number}" transform="translate({at})"'
    if not on_front:
        return f'<g class="point" {place}>{title}<circle r="4.5"/></g>'
    best = trial.number == report.best.number
    shape = f'<path d="{star(11)}"/>' if best else '<circle r="6"/>'
    kind = "best" if best else "front"
    return f'<a class="point {kind}" href="#trial-{trial.number}" {place}>{title}{shape}</a>'


def described(report: SearchReport, trial: Trial) -> str:
    """Describe a trial in a few lines: its figures, and the candidate of each choice."""
    figures = [f"{report.title(name)}: {figure(value)}" for name, value in trial.values.items()]
    choices = ", ".join(f"{label}: {name}" for label, name in trial.choices.items())
    return "\n".join([f"trial {trial.number}", f"{report.metric}: {trial.metric:.4f}", *figures, choices])


def star(radius: float) -> str:
    """Return the path of a five-pointed star around the origin."""
    corners = [
        (r * math.sin(math.pi * i / 5), -r * math.cos(math.pi * i / 5))
        for i, r in enumerate([radius, 0.45 * radius] * 5)
    ]
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in corners) + "Z"
