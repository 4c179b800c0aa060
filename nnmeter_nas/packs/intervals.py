"""Intervals: how far a predicted latency may be from the measured one, at a level of confidence.

The half-width is that of a model without doubt times ``1 + slopes . doubt``. It is a logarithm of the
latency, so no interval reaches zero. The slopes are a quantile regression of the errors on models and
families that were held out (Koenker and Bassett, Econometrica 1978). The half-width at each level is the
quantile of the scaled errors on held-out models: split conformal prediction with normalised scores
(Papadopoulos et al., ECML 2002).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..errors import PackError
from ..kernels.configuration import FloatArray
from .doubt import Doubt

#: Levels of confidence that half-widths are kept for; those between are interpolated.
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)


class Interval(NamedTuple):
    """A latency in ms, and the limits that hold the measured one at a level of confidence."""

    low: float
    ms: float
    high: float

    def __str__(self) -> str:
        digits = max(0, 2 - math.floor(math.log10(self.ms))) if self.ms > 0 else 1
        digits = min(max(digits, 1), 6)
        return f"{self.ms:.{digits}f} ms ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass(frozen=True)
class Intervals:
    """What turns doubt into an interval.

    Attributes:
        half_widths: of a model without doubt, by level; a half-width of 0.05 is about 5 %.
        slopes: how much each kind of doubt widens the interval, by its name in :class:`Doubt`.
    """

    half_widths: Mapping[float, float]
    slopes: Mapping[str, float]

    def scale(self, doubt: Doubt) -> float:
        """How many times wider the interval is than that of a model without doubt."""
        return 1 + math.fsum(self.slopes.get(name, 0.0) * value for name, value in doubt._asdict().items())

    def around(self, ms: float, doubt: Doubt, level: float) -> Interval:
        """The interval around ``ms``.

        Raises:
            ValueError: ``level`` is not between the least and the greatest level.
        """
        levels = sorted(self.half_widths)
        if not levels[0] <= level <= levels[-1]:
            raise ValueError(f"level={level!r} must be a number from {levels[0]} to {levels[-1]}")
        # Tails are close to exponential, so interpolate over the logarithm of what is left out.
        left_out = [-math.log(1 - one) for one in levels]
        half = float(np.interp(-math.log(1 - level), left_out, [self.half_widths[one] for one in levels]))
        width = math.exp(half * self.scale(doubt))
        return Interval(ms / width, ms, ms * width)

    def to_card(self) -> dict[str, Any]:
        """The intervals as they stand on a card."""
        return {
            "half_widths": {level: float(f"{half:.4g}") for level, half in self.half_widths.items()},
            "slopes": {name: float(f"{slope:.4g}") for name, slope in self.slopes.items()},
        }

    @classmethod
    def from_card(cls, entry: Any) -> Intervals:
        """Inverse of :meth:`to_card`; other entries are ignored.

        Raises:
            PackError: a figure is missing, not a finite number or below zero.
        """
        try:
            halves = {float(level): float(half) for level, half in entry["half_widths"].items()}
            slopes = {str(name): float(slope) for name, slope in entry["slopes"].items()}
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise PackError(f"the card has no usable intervals: {error!r}") from error
        if not halves or not all(0 < level < 1 for level in halves):
            raise PackError("the card has no usable intervals: levels are numbers between 0 and 1")
        if not all(0 <= number < math.inf for number in (*halves.values(), *slopes.values())):
            raise PackError("the card has no usable intervals: a number is below zero or not finite")
        return cls(halves, slopes)


def conformal_half_widths(scores: FloatArray) -> dict[float, float]:
    """The half-width at each of :data:`LEVELS`, from errors over scales of held-out models, ``[n]``."""
    return {level: conformal_half_width(scores, level) for level in LEVELS}


def conformal_half_width(scores: FloatArray, level: float, weights: FloatArray | None = None) -> float:
    """The half-width that holds for a share ``level`` of models, from errors over scales ``[n]``.

    ``weights [n]`` say how much each model counts. With too few models for the level, the half-width is the
    greatest error, widened as if tails were exponential.
    """
    n, order = len(scores), np.argsort(scores)
    shares = np.full(n, 1.0) if weights is None else weights[order] / weights.mean()
    place = int(np.searchsorted(np.cumsum(shares) / (n + 1), level - 1e-12))
    beyond = math.log(1 / (1 - level)) / math.log(n + 1) if place == n else 1.0
    return float(scores[order[min(place, n - 1)]] * max(1.0, beyond))
