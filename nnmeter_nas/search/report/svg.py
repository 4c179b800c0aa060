"""Draw the Pareto chart of a report as SVG, without a library; its points show their architectures."""

from __future__ import annotations

import math

from ...pages import Frame, Scale, axes, chart, escaped, figure, numbered, scale
from .outcome import SearchReport
from .plot import axis_range
from .trials import Trial

_FRAME = Frame()


def pareto_chart(report: SearchReport, name: str) -> str:
    """Draw the metric of each trained trial over the measure ``name``, as an SVG element.

    Trials of the front link to their row ``#trial-<number>``. The title of each point is its architecture.
    """
    low, high = axis_range(report, name)
    metrics = [trial.metric for trial in report.trained if trial.metric is not None]
    margin = 0.12 * (max(metrics) - min(metrics)) or 0.05 * abs(max(metrics)) or 0.05
    bottom, top = min(metrics) - margin, max(metrics) + margin
    x = scale(low, high, _FRAME.left, _FRAME.right)
    y = scale(bottom, top, _FRAME.bottom, _FRAME.top)
    front = {trial.number for trial in report.front}
    # The last point drawn lies on top, so draw the best last, just after the rest of the front.
    order = sorted(report.trained, key=lambda t: (t.number in front, t.metric or 0.0))
    parts = [
        *axes(
            _FRAME,
            [(x(value), words) for value, words in numbered(low, high)],
            [(y(value), words) for value, words in numbered(bottom, top)],
            report.title(name),
            report.metric,
        ),
        *_limits(report, name, low, high, x),
        *_steps(report, name, x, y),
        *(_point(report, trial, name, x, y, trial.number in front) for trial in order),
    ]
    shown = f"{len(order)} architectures, {len(front)} on the front"
    return chart(_FRAME, f"{report.metric} over {report.title(name)}: {shown}", parts)


def _limits(report: SearchReport, name: str, low: float, high: float, x: Scale) -> list[str]:
    """Draw a dashed line for each limit within the chart, and shade the area outside the limit."""
    least, most = report.limits(name)
    height = _FRAME.bottom - _FRAME.top
    parts = []
    for limit, start, end in ((least, low, least), (most, most, high)):
        if low <= limit <= high:
            parts.append(
                f'<rect class="outside" x="{x(start):.1f}" y="{_FRAME.top}" width="{x(end) - x(start):.1f}" '
                f'height="{height}"/><path class="limit" d="M{x(limit):.1f} {_FRAME.top}v{height}"/>'
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
    if trial.expected:
        figures.insert(0, "expected: {:.4f}, {:.4f} to {:.4f}".format(*trial.expected))
    choices = ", ".join(f"{label}: {name}" for label, name in trial.choices.items())
    return "\n".join([f"trial {trial.number}", f"{report.metric}: {trial.metric:.4f}", *figures, choices])


def star(radius: float) -> str:
    """Return the path of a five-pointed star around the origin."""
    corners = [
        (r * math.sin(math.pi * i / 5), -r * math.cos(math.pi * i / 5))
        for i, r in enumerate([radius, 0.45 * radius] * 5)
    ]
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in corners) + "Z"
