"""Say when a machine ran at another speed than the latencies of its pack are of."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Iterable

from ..predictor import LatencyWarning
from .visits import Undisturbed, Visit

#: Speeds so many times apart are worth a warning: not all networks slow down alike.
_APART = 1.25


def warn_of_drift(visits: Iterable[Visit], undisturbed: Undisturbed | None) -> None:
    """Warn if most visits ran much slower or quicker than the undisturbed machine that latencies are of.

    Args:
        visits: what was measured.
        undisturbed: that machine; None where latencies are another machine's.

    Warns:
        LatencyWarning: the median is far from it.
    """
    speeds = [visit.speed.large_ms for visit in visits if visit.speed is not None]
    if not speeds or undisturbed is None:
        return
    slowness = statistics.median(speeds) / undisturbed.speed.large_ms
    if 1 / _APART < slowness < _APART:
        return
    how = f"{slowness:.2f} times slower" if slowness > 1 else f"{1 / slowness:.2f} times quicker"
    warnings.warn(
        f"the machine ran {how} than the undisturbed one that the latencies are of; they are converted, but "
        "not all networks change alike: measure again when it is quiet",
        LatencyWarning,
        stacklevel=3,
    )
