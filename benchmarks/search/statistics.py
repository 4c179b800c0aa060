"""Hypervolume of (accuracy, latency), and paired tests that compare searches by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnmeter_nas.extras import load_extra
from nnmeter_nas.kernels.configuration import FloatArray


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


@dataclass(frozen=True)
class Comparison:
    """A strategy against a rival in one task, over the same seeds.

    Attributes:
        task, rival: names.
        difference: the strategy's figure minus the rival's, median over the seeds.
        wins, seeds: number of seeds in which the strategy has more, and of all.
        p: of Wilcoxon's signed-rank test, two-sided.
        p_holm: the same, corrected for the number of comparisons.
        level: probability of a false positive, over all comparisons.
    """

    task: str
    rival: str
    difference: float
    wins: int
    seeds: int
    p: float
    p_holm: float
    level: float

    @property
    def ahead(self) -> bool:
        """Whether the strategy has significantly more."""
        return self.difference > 0 and self.p_holm < self.level

    @property
    def behind(self) -> bool:
        """Whether the strategy has significantly less."""
        return self.difference < 0 and self.p_holm < self.level


def compare(
    found: Mapping[str, Mapping[str, Sequence[float]]], strategy: str, level: float
) -> list[Comparison]:
    """Compare a strategy with all others in each task by Wilcoxon's signed-rank test, with Holm's correction.

    A seed is the same task for all strategies, so figures are compared seed by seed. The signed-rank test
    only assumes that the differences are symmetric; twenty of them cannot show that they are normal. The test
    needs SciPy, which scikit-learn brings.

    Args:
        found: figure in each seed, by task and strategy; the same seeds for all. A task that lacks
            ``strategy`` is left out.
        strategy: the one to compare.
        level: probability of a false positive, over all comparisons together.

    Raises:
        MissingPackageError: SciPy is not installed.
    """
    pairs = [
        (task, rival, np.subtract(of_task[strategy], figures))
        for task, of_task in found.items()
        if strategy in of_task
        for rival, figures in of_task.items()
        if rival != strategy
    ]
    p = [signed_rank(difference) for _, _, difference in pairs]
    return [
        Comparison(task, rival, float(np.median(d)), int((d > 0).sum()), len(d), raw, corrected, level)
        for (task, rival, d), raw, corrected in zip(pairs, p, holm(p), strict=True)
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
