"""Hypervolume of (accuracy, latency), and paired tests that compare searches by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnmeter_nas.extras import load_extra
from nnmeter_nas.kernels.configuration import FloatArray

#: Probability of a false positive, over all comparisons in a space.
_ALPHA = 0.05


def hypervolume(latency: npt.ArrayLike, accuracy: npt.ArrayLike, limit: float, floor: float) -> float:
    """Area that the points dominate, up to latency ``limit`` and down to accuracy ``floor``.

    Zitzler and Thiele, "Multiobjective Evolutionary Algorithms", IEEE TEC 3(4), 1999, in two dimensions: the
    area of all (latency, accuracy) inside the reference point for which some point is as fast and as accurate
    or better.

    Args:
        latency: ``[N]``, lower is better.
        accuracy: ``[N]``, higher is better.
        limit: latency of the reference point.
        floor: accuracy of the reference point.

    >>> hypervolume([1.0, 2.0, 3.0], [0.5, 0.75, 0.7], limit=4.0, floor=0.0)
    2.0
    """
    ms, score = np.asarray(latency, dtype=float), np.asarray(accuracy, dtype=float)
    counts = (ms < limit) & (score > floor)
    order = np.argsort(ms[counts], kind="stable")
    ms, best = ms[counts][order], np.maximum.accumulate(score[counts][order])
    return float(np.sum((best - floor) * np.diff(ms, append=limit)))


def hypervolumes(latency: FloatArray, accuracy: FloatArray, limit: float, floor: float) -> FloatArray:
    """Hypervolume after each of ``N`` trials, ``[N]``; same arguments as :func:`hypervolume`."""
    return np.array(
        [hypervolume(latency[:n], accuracy[:n], limit, floor) for n in range(1, len(latency) + 1)]
    )


def front(latency: FloatArray, accuracy: FloatArray) -> npt.NDArray[np.intp]:
    """Indices of the points on the Pareto front, the fastest first."""
    order = np.lexsort((-accuracy, latency))
    best = np.maximum.accumulate(accuracy[order])
    return order[np.diff(best, prepend=-np.inf) > 0]


@dataclass(frozen=True)
class Comparison:
    """One strategy against a rival, over the same seeds.

    Attributes:
        difference: the strategy's hypervolume minus the rival's, median over the seeds.
        wins: number of seeds in which the strategy has more.
        p: of Wilcoxon's signed-rank test, two-sided.
        p_holm: the same, corrected for the number of comparisons in the space.
    """

    strategy: str
    rival: str
    difference: float
    wins: int
    seeds: int
    p: float
    p_holm: float

    @property
    def ahead(self) -> bool:
        """Whether the strategy has significantly more hypervolume."""
        return self.difference > 0 and self.p_holm < _ALPHA

    @property
    def sentence(self) -> str:
        """The comparison in one sentence."""
        seeds = f"more hypervolume in {self.wins} of {self.seeds} seeds"
        p = f"p = {self.p_holm:.2g}"
        if self.ahead:
            return f"{self.strategy} is ahead of {self.rival} with {p} ({seeds})."
        if self.difference < 0 and self.p_holm < _ALPHA:
            return f"{self.strategy} is not ahead of {self.rival}: it is behind with {p} ({seeds})."
        return f"{self.strategy} is not ahead of {self.rival}: {p} ({seeds})."


def compare(
    found: Mapping[str, Sequence[float]], strategies: Sequence[str], rivals: Sequence[str]
) -> list[Comparison]:
    """Compare each strategy with each rival by Wilcoxon's signed-rank test with Holm's correction.

    A seed is the same task for all strategies, so hypervolumes are compared seed by seed. The signed-rank
    test only assumes that the differences are symmetric; ten of them cannot show that they are normal. The
    test needs SciPy, which scikit-learn brings.

    Args:
        found: hypervolume in each seed, by name.
        strategies, rivals: names in ``found``.

    Raises:
        MissingPackageError: SciPy is not installed.
    """
    pairs = [(strategy, rival) for strategy in strategies for rival in rivals]
    differences = [np.subtract(found[strategy], found[rival]) for strategy, rival in pairs]
    p = [signed_rank(difference) for difference in differences]
    return [
        Comparison(*pair, float(np.median(d)), int((d > 0).sum()), len(d), raw, corrected)
        for pair, d, raw, corrected in zip(pairs, differences, p, holm(p), strict=True)
    ]


def signed_rank(differences: npt.ArrayLike) -> float:
    """Two-sided p of Wilcoxon's signed-rank test ("Individual Comparisons by Ranking Methods", 1945)."""
    values = np.asarray(differences, dtype=float)
    if not values.any():
        return 1.0
    stats = load_extra("scipy.stats", "bench", "comparing searches")
    return float(stats.wilcoxon(values).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm, "A Simple Sequentially Rejective ... Procedure", 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    steps = np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p)[order] * steps), 1)
    return corrected.tolist()
