"""How the front of a search grew from trial to trial: shares of its final hypervolume, and their chart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nnmeter_nas.strategies.hypervolume import Front, even_directions

from ...kernels.configuration import FloatArray
from ...pages import Frame, axes, captioned, chart, escaped, numbered, scale, section
from .outcome import SearchReport
from .svg import described
from .trials import Trial

_FRAME = Frame(height=320, bottom=270)
#: Directions in which a front is measured.
_DIRECTIONS = 512
#: Metrics below this quantile of all trials do not add to the hypervolume.
_REFERENCE = 0.1
#: Without a limit, the reference point is beyond the most of an objective by this share of its range.
_BEYOND = 0.1
#: Shares of the final hypervolume that the text tells the trials of.
_TOLD = (0.9, 0.99)


def growth(report: SearchReport) -> list[tuple[Trial, float]]:
    """The hypervolume of the front after each trial, as a share of the last, in the order of proposal.

    The hypervolume is that of the points of :func:`_gains`. Trials that were not trained are left out. Empty
    if nothing is better than the reference point.
    """
    trials = [trial for trial in report.trained if set(report.objectives) <= trial.values.keys()]
    if not trials:
        return []
    gains = _gains(report, trials)
    directions = even_directions(gains.shape[1], _DIRECTIONS)
    kept: list[FloatArray] = []
    front = Front.of([], directions)
    volumes = []
    for gain in gains:
        if front.improvements(gain[None])[0] > 0:
            kept.append(gain)
            front = Front.of(kept, directions)
        volumes.append(front.hypervolume)
    final = volumes[-1]
    if final <= 0:
        return []
    return [(trial, volume / final) for trial, volume in zip(trials, volumes, strict=True)]


def _gains(report: SearchReport, trials: Sequence[Trial]) -> FloatArray:
    """By how much trials are better than the reference point, in the metric and in each objective.

    The reference point is a poor metric, and of each objective the limit, or a little beyond the most that
    any trial has. Gains are shares of the range of the trials, ``[trials, 1 + objectives]``.
    """
    metrics = np.array([trial.metric for trial in trials], dtype=float)
    poor = float(np.quantile(metrics, _REFERENCE))
    columns = [_shares(metrics - poor)]
    for name in report.objectives:
        values = np.array([trial.values[name] for trial in trials])
        _, most = report.limits(name)
        if not math.isfinite(most):
            most = float(values.max() + _BEYOND * np.ptp(values))
        columns.append(_shares(most - values))
    return np.column_stack(columns)


def _shares(gains: FloatArray) -> FloatArray:
    """Gains as shares of the largest; all 1 where they are equal, as they tell nothing apart then."""
    if np.ptp(gains) == 0:
        return np.ones(len(gains))
    return gains / gains.max()


def growth_section(report: SearchReport) -> str:
    """Make the section with the chart; empty before there are two trained trials."""
    found = growth(report)
    if len(found) < 2:
        return ""
    # If one trial brought it from below both shares to above them, only the larger one is told.
    told = {next(trial.number for trial, done in found if done >= share): share for share in _TOLD}
    words = " and ".join(f"{share:.0%} of it after trial {number}" for number, share in told.items())
    intro = (
        "<p>The hypervolume of the front: how much of what lies between a poor trial at the limits and the "
        f"best values of all trials it beats. The search had {words} of {found[-1][0].number}. "
        "A line that still climbs at its end says that more trials would find more.</p>"
    )
    return section("Growth of the front", intro, _chart(report, found))


def _chart(report: SearchReport, found: Sequence[tuple[Trial, float]]) -> str:
    """Draw the share of the final hypervolume over the number of the trial."""
    last = max(trial.number for trial in report.trials)
    x = scale(0, last, _FRAME.left, _FRAME.right)
    y = scale(0, 100, _FRAME.bottom, _FRAME.top)
    path, points, before = f"M{x(0):.1f} {y(0):.1f}", [], 0.0
    for trial, share in found:
        path += f"H{x(trial.number):.1f}V{y(100 * share):.1f}"
        if share > before:
            words = f"{described(report, trial)}\n{share:.1%} of the final hypervolume"
            points.append(
                f'<g class="point front" data-trial="{trial.number}" tabindex="0" '
                f'transform="translate({x(trial.number):.1f} {y(100 * share):.1f})">'
                f'<title>{escaped(words)}</title><circle r="4.5"/></g>'
            )
        before = share
    keys = [("line", "front so far"), ("point front", "trial that improved it")]
    model = next((trial.number for trial in report.trials if trial.expected), None)
    taken_over = []
    if model is not None:
        keys.append(("limit", f"first trial that the model proposed: {model}"))
        taken_over = [f'<path class="limit" d="M{x(model):.1f} {_FRAME.top}V{_FRAME.bottom}"/>']
    parts = [
        *axes(
            _FRAME,
            [(x(value), words) for value, words in numbered(0, last) if value == int(value)],
            [(y(value), words) for value, words in numbered(0, 100)],
            "trial",
            "final hypervolume (%)",
        ),
        *taken_over,
        f'<path class="line" d="{path}H{x(last):.1f}"/>',
        *points,
    ]
    label = f"share of the final hypervolume over {len(found)} trained trials"
    return captioned(chart(_FRAME, label, parts), keys)
