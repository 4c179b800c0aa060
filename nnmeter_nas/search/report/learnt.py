"""What a strategy that learns knew: the metrics that it expected, and the choices it holds responsible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...pages import Frame, axes, bar, captioned, chart, escaped, number, numbered, scale, section, table
from .outcome import SearchReport
from .svg import described
from .trials import Trial

_SQUARE = Frame(width=560, height=480, left=84, top=12, right=548, bottom=430)


def learnt_section(report: SearchReport) -> str:
    """Make the section; empty if the strategy expected nothing and holds nothing responsible."""
    proposed = [trial for trial in report.trials if trial.expected]
    judged = [trial for trial in proposed if trial.state == "trained"]
    parts = [_scatter(report, judged)] if judged else []
    parts += [_importance(report)] if report.importance else []
    if not parts:
        return ""
    told = _how_good(report, proposed, judged) if judged else ""
    return section("What was learnt", told, f'<div class="charts">{"".join(parts)}</div>')


def _how_good(report: SearchReport, proposed: Sequence[Trial], judged: Sequence[Trial]) -> str:
    """Say how far the metrics were from what was expected, and how often within its limits."""
    off, within = [], 0
    for trial in judged:
        assert trial.expected is not None
        assert trial.metric is not None
        off.append(abs(trial.metric - trial.expected.metric))
        within += trial.expected.low <= trial.metric <= trial.expected.high
    metric = escaped(report.metric)
    return (
        f"<p>The model of the {metric} proposed {len(proposed)} of {len(report.trials)} trials, and "
        f"{len(judged)} of them reported one. It was off by {np.median(off):.4f} in the median, and {within} "
        f"of {len(judged)} are within the limits that should hold two of three.</p>"
    )


def _scatter(report: SearchReport, judged: Sequence[Trial]) -> str:
    """Draw expected over reported metric of trials, with the limits of what was expected."""
    reported = [trial.metric for trial in judged if trial.metric is not None]
    values = [*reported, *(value for trial in judged for value in trial.expected or ())]
    margin = 0.04 * (max(values) - min(values)) or 0.05 * abs(max(values)) or 0.05
    low, high = min(values) - margin, max(values) + margin
    x = scale(low, high, _SQUARE.left, _SQUARE.right)
    y = scale(low, high, _SQUARE.bottom, _SQUARE.top)
    front = {trial.number for trial in report.front}
    points = []
    for trial in sorted(judged, key=lambda trial: trial.number in front):
        assert trial.expected is not None
        assert trial.metric is not None
        middle = y(trial.expected.metric)
        on_front = trial.number in front
        points.append(
            f'<g class="point{" front" if on_front else ""}" data-trial="{trial.number}" tabindex="0" '
            f'transform="translate({x(trial.metric):.1f} {middle:.1f})">'
            f"<title>{escaped(described(report, trial))}</title>"
            f'<path class="interval" d="M0 {y(trial.expected.low) - middle:.1f}'
            f'V{y(trial.expected.high) - middle:.1f}"/><circle r="{6 if on_front else 4.5}"/></g>'
        )
    ticks = numbered(low, high)
    parts = [
        *axes(
            _SQUARE,
            [(x(value), words) for value, words in ticks],
            [(y(value), words) for value, words in ticks],
            f"reported {report.metric}",
            f"expected {report.metric}",
        ),
        f'<path class="diagonal dashed" d="M{x(low):.1f} {y(low):.1f}L{x(high):.1f} {y(high):.1f}"/>',
        *points,
    ]
    label = f"expected over reported {report.metric} of {len(judged)} trials"
    keys = [
        ("point front", "on the Pareto front"),
        ("point", "other trials, as expected when they were proposed"),
        ("interval", "should hold two of three"),
        ("diagonal dashed", "as expected"),
    ]
    return captioned(chart(_SQUARE, label, parts), keys)


def _importance(report: SearchReport) -> str:
    """List the choices by how much of what the model knows it owes to them."""
    most = max(report.importance.values()) or 1.0
    chosen = report.best.choices if report.front else {}
    rows = [
        [
            f'<th scope="row">{escaped(label)}</th>',
            number(share, "{:.1%}".format, more=bar(share / most)),
            f"<td>{escaped(chosen.get(label, ''))}</td>",
        ]
        for label, share in sorted(report.importance.items(), key=lambda one: -one[1])
    ]
    caption = (
        f"By how much the model's {report.metric} of the trials changes while one choice is dealt out anew "
        "among them, as a share of all such changes"
    )
    return table(("choice", "importance", "the best has"), rows, caption, "parts")
