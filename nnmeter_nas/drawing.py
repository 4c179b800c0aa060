"""A chart to draw on, and the PNG that it becomes.

Without pyplot: no display is looked for and no global state is left behind.
"""

from __future__ import annotations

import io
from typing import Any

from .extras import load_extra


def new_chart(width: float, height: float, dpi: int) -> Any:
    """An empty figure of matplotlib.

    Args:
        width, height: in inches.
        dpi: pixels an inch.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    figure_module = load_extra("matplotlib.figure", "plot", "drawing a chart")
    return figure_module.Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def to_png(chart: Any) -> bytes:
    """What ``chart`` looks like, as PNG."""
    png = io.BytesIO()
    chart.savefig(png, format="png")
    return png.getvalue()
