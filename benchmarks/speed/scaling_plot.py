"""Plot the curves of :mod:`.scaling`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnmeter_nas.drawing import new_chart, to_png

from .figures import Figure
from .scaling import CANDIDATES, OPERATORS

#: Most colour-blind readers can tell these apart.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00")


def scaling_plot(figures: Sequence[Figure]) -> bytes:
    """Plot total and unit cost over size, with one column for operators and one for candidates.

    Args:
        figures: with ``points``, named ``<what>, by <unit>``.

    Returns:
        A PNG.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    picture = new_chart(11, 8, dpi=110)
    panels = picture.subplots(2, 2, sharex="col")
    for unit, (total, each) in zip((OPERATORS, CANDIDATES), panels.T, strict=True):
        curves = [figure for figure in figures if figure.name.endswith(f", by {unit}")]
        for figure, colour in zip(curves, _COLOURS, strict=False):
            _draw(figure, total, each, colour)
        if curves:
            _draw_slope(total, curves)
            total.legend(fontsize="small", frameon=False)
        total.set_title(f"cost against {unit}", fontweight="bold")
        total.set_ylabel("s")
        each.set_ylabel(f"µs for each of the {unit}")
        each.set_xlabel(unit)
        for panel in (total, each):
            panel.set_xscale("log")
            panel.set_yscale("log")
            panel.grid(alpha=0.3)
    return to_png(picture)


def _draw(figure: Figure, total: Any, each: Any, colour: str) -> None:
    """Draw one curve into both panels: medians and interquartile ranges."""
    sizes = np.array([size for size, _ in figure.points])
    low, middle, high = np.array([np.quantile(s.values, [0.25, 0.5, 0.75]) for _, s in figure.points]).T
    name = figure.name.partition(", by ")[0]
    label = f"{name} (exponent {figure.ours.median:.2f})"
    total.plot(sizes, middle, color=colour, marker="o", markersize=3, label=label)
    total.fill_between(sizes, low, high, color=colour, alpha=0.2, linewidth=0)
    each.plot(sizes, 1e6 * middle / sizes, color=colour, marker="o", markersize=3)
    each.fill_between(sizes, 1e6 * low / sizes, 1e6 * high / sizes, color=colour, alpha=0.2, linewidth=0)


def _draw_slope(panel: Any, curves: Sequence[Figure]) -> None:
    """Draw a line of slope 1 through the end of the costliest curve."""
    sizes = np.array([size for figure in curves for size, _ in figure.points])
    size, seconds = max(((n, s.median) for f in curves for n, s in f.points), key=lambda end: end[1])
    ends = np.array([sizes.min(), sizes.max()])
    panel.plot(ends, seconds / size * ends, color="#555555", linestyle="--", linewidth=1, label="linear")
