"""Create a chart and render it as PNG.

Uses matplotlib without pyplot, so it needs no display and leaves no global state behind.
"""

from __future__ import annotations

import io
from typing import Any

from .extras import load_extra


def new_chart(width: float, height: float, dpi: int) -> Any:
    """Return an empty matplotlib figure; its size is in inches.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    figure_module = load_extra("matplotlib.figure", "plot", "drawing a chart")
    return figure_module.Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def to_png(chart: Any) -> bytes:
    """Render ``chart`` as PNG."""
    png = io.BytesIO()
    chart.savefig(png, format="png")
    return png.getvalue()
