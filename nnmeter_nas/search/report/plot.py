"""Draw the Pareto plot of a search as a PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...drawing import new_chart, to_png
from ...pages import figure
from .outcome import SearchReport
from .trials import Trial

_FRONT_COLOUR, _TRIAL_COLOUR, _LIMIT_COLOUR, _BEST_COLOUR = "#0b6e4f", "#8a9099", "#c0392b", "#f2b134"
_PANELS_A_ROW = 2
#: Largest number of trials for which a panel numbers trials outside the front.
_NUMBERED = 25
#: Numbers of trials that are closer than this share of each axis stand together.
_NEAR = 0.03
#: From this value on, axes show numbers in thousands, millions and billions.
_LARGE = 1e4


def pareto_plot(report: SearchReport) -> bytes:
    """Plot the metric over each latency and each other objective, with limits, Pareto front and best trial.

    Returns a PNG.

    Raises:
        MissingPackageError: matplotlib is not installed.
        SearchError: no trial was trained.
    """
    best, axes_of = report.best, report.axes
    columns = min(len(axes_of), _PANELS_A_ROW)
    rows = -(-len(axes_of) // columns)
    width, height = (8, 5.2) if len(axes_of) == 1 else (6.8 * columns, 4.9 * rows + 0.3)
    drawing = new_chart(width, height, dpi=150)
    title = f"{report.space}: {report.metric} of {len(report.trained)} trained architectures"
    drawing.suptitle(title, parse_math=False)
    panels = list(drawing.subplots(rows, columns, squeeze=False).flat)
    for axes, name in zip(panels, axes_of, strict=False):
        _draw(axes, report, name, best)
    for axes in panels[len(axes_of) :]:
        axes.set_axis_off()
    return to_png(drawing)


def _draw(axes: Any, report: SearchReport, name: str, best: Trial) -> None:
    """Draw one panel: the metric over the measure ``name``."""
    trained, front = report.trained, report.front
    left, right = axis_range(report, name)
    axes.scatter(*_points(trained, name), s=40, color=_TRIAL_COLOUR, label="trained architecture", zorder=2)
    if len(report.objectives) == 1 and name in report.objectives:
        axes.plot(
            *_points(front[::-1], name), color=_FRONT_COLOUR, drawstyle="steps-post", linewidth=1.5, zorder=3
        )
    axes.scatter(*_points(front, name), s=65, color=_FRONT_COLOUR, label="Pareto front", zorder=4)
    axes.scatter(
        *_points([best], name),
        s=240,
        marker="*",
        color=_BEST_COLOUR,
        edgecolor=_FRONT_COLOUR,
        label=f"best: {best.metric:.4g} at {figure(best.values[name])} {report.unit(name)}".strip(),
        zorder=5,
    )
    _draw_limits(axes, report, name, left, right)
    axes.margins(y=0.14)
    axes.set_xlim(left, right)
    low, high = axes.get_ylim()
    numbered = trained if len(trained) <= _NUMBERED else front
    for words, at in numbers_of(numbered, name, _NEAR * (right - left), _NEAR * (high - low)):
        axes.annotate(
            words,
            at,
            xytext=(-7, 6),
            ha="right",
            textcoords="offset points",
            fontsize=8,
            color="#444444",
            zorder=6,
        )
    predicted = ", predicted, batch 1" if name in report.hardware else ""
    axes.set_xlabel(f"{report.title(name)}{predicted}", parse_math=False)
    axes.set_ylabel(report.metric, parse_math=False)
    if right >= _LARGE:
        axes.xaxis.set_major_formatter(lambda value, _: figure(value))
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize=8.5)


def numbers_of(
    trials: Sequence[Trial], name: str, across: float, up: float
) -> list[tuple[str, tuple[float, float]]]:
    """Return the numbers of trials, and where they stand: one text for those that would cover each other.

    Args:
        trials: trained trials.
        name: the measure that is drawn.
        across, up: trials that are closer in the measure and in the metric share a text.
    """
    groups: list[list[tuple[float, float, int]]] = []
    for trial in sorted(trials, key=lambda trial: trial.values[name]):
        x, y = trial.values[name], trial.metric or 0.0
        near = (group for group in groups if x - group[0][0] < across and abs(y - group[0][1]) < up)
        group = next(near, None)
        if group is None:
            groups.append(group := [])
        group.append((x, y, trial.number))
    return [
        (", ".join(str(number) for *_, number in group), (group[0][0], max(y for _, y, _ in group)))
        for group in groups
    ]


def _draw_limits(axes: Any, report: SearchReport, name: str, left: float, right: float) -> None:
    """Draw a dashed line per limit and shade the area outside; a distant limit appears in the legend only."""
    least, most = report.limits(name)
    for limit, words, outside in ((most, "at most", (most, right)), (least, "at least", (left, least))):
        if math.isfinite(limit):
            axes.axvline(
                limit,
                color=_LIMIT_COLOUR,
                linestyle="--",
                linewidth=1.3,
                label=f"limit: {words} {figure(limit)} {report.unit(name)}".strip(),
            )
            if outside[0] < outside[1]:
                axes.axvspan(*outside, color=_LIMIT_COLOUR, alpha=0.06, linewidth=0)


def axis_range(report: SearchReport, name: str) -> tuple[float, float]:
    """Return the axis range of the measure ``name``: it covers all trained trials, and limits near them."""
    values = [trial.values[name] for trial in report.trained]
    low, high = min(values), max(values)
    spread = max(high - low, 0.05 * abs(high)) or 1.0
    near = [limit for limit in report.limits(name) if low - spread <= limit <= high + spread]
    return min([low, *near]) - 0.1 * spread, max([high, *near]) + 0.1 * spread


def _points(trials: Sequence[Trial], name: str) -> tuple[list[float], list[float]]:
    """Return the values of the measure ``name``, and the metrics."""
    return [t.values[name] for t in trials], [t.metric for t in trials if t.metric is not None]
