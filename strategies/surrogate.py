"""A model of the metric of architectures, learned from the trials that have ended."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nnmeter_nas.costs.table import IntArray
from nnmeter_nas.kernels.configuration import FloatArray

#: Trees of the forest, and trials up to which a Gaussian process learns beside it: it takes their cube.
_TREES, _MOST_OF_PROCESS = 100, 400


class Features:
    """What the model sees of architectures: the candidate at each position, how often each occurs, hints.

    Args:
        names: names of the candidates, by position; the same name elsewhere is the same candidate.
    """

    def __init__(self, names: Sequence[Sequence[str]]) -> None:
        distinct = list(dict.fromkeys(name for known in names for name in known))
        self._number = [np.array([distinct.index(name) for name in known]) for known in names]
        self._names = len(distinct)

    def of(self, rows: IntArray, hints: FloatArray) -> FloatArray:
        """Features of architectures, ``[N, positions]`` and their hints ``[N, hints] -> [N, features]``."""
        columns = [
            (rows[:, position, None] == np.arange(len(known))).astype(float)
            for position, known in enumerate(self._number)
        ]
        counts = np.zeros((len(rows), self._names))
        for position, known in enumerate(self._number):
            counts[np.arange(len(rows)), known[rows[:, position]]] += 1
        return np.concatenate([*columns, counts, hints], axis=1)


class Scores:
    """Metrics as scores: the quantile of the normal distribution that their rank stands for.

    A metric has any scale, and a few architectures that learn nothing would hide all other differences.
    Beyond the best metric, scores go on along the line of the best quarter.

    >>> scores = Scores(np.array([0.1, 0.6, 0.9]))
    >>> scores.metrics(scores.of(np.array([0.6, 0.75]))).round(3).tolist()
    [0.6, 0.75]
    """

    def __init__(self, metrics: npt.NDArray[np.floating]) -> None:
        from scipy.special import ndtri

        ranked = np.sort(np.asarray(metrics, dtype=float))
        quantiles = ndtri((np.arange(len(ranked)) + 0.5) / len(ranked))
        self._metrics, first = np.unique(ranked, return_index=True)
        self._scores = np.add.reduceat(quantiles, first) / np.diff(first, append=len(ranked))

    def of(self, metrics: FloatArray) -> FloatArray:
        """Scores of metrics."""
        return np.interp(metrics, self._metrics, self._scores)

    def metrics(self, scores: FloatArray) -> FloatArray:
        """Metrics of scores, the inverse of :meth:`of`."""
        found = np.interp(scores, self._scores, self._metrics)
        if len(self._scores) < 2:
            return found
        start = -1 - max(1, len(self._scores) // 4)
        slope = (self._metrics[-1] - self._metrics[start]) / (self._scores[-1] - self._scores[start])
        return found + slope * np.maximum(scores - self._scores[-1], 0.0)


class Surrogate:
    """An ensemble that predicts scores: a forest of extremely randomised trees and a Gaussian process.

    The forest is that of Geurts, Ernst and Wehenkel, "Extremely randomized trees", Machine Learning 63, 2006.
    """

    def __init__(self, features: FloatArray, scores: FloatArray, seed: int) -> None:
        """Learn ``scores [N]`` of architectures with ``features [N, features]``."""
        from sklearn.ensemble import ExtraTreesRegressor

        self._shift, self._scale = features.mean(axis=0), features.std(axis=0)
        self._scale[self._scale == 0] = 1.0
        self._forest = ExtraTreesRegressor(_TREES, random_state=seed).fit(features, scores)
        self._process = _process(self._scaled(features), scores) if len(scores) <= _MOST_OF_PROCESS else None

    def predict(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of the scores of architectures, ``[N]`` each."""
        trees = np.stack([tree.predict(features) for tree in self._forest.estimators_])
        mean, deviation = trees.mean(axis=0), trees.std(axis=0)
        if self._process is None:
            return mean, deviation
        other, spread = self._process.predict(self._scaled(features), return_std=True)
        between = (mean - other) / 2
        return (mean + other) / 2, np.sqrt((deviation**2 + spread**2) / 2 + between**2)

    def _scaled(self, features: FloatArray) -> FloatArray:
        return np.asarray((features - self._shift) / self._scale)


def _process(features: FloatArray, scores: FloatArray) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    length = features.shape[1] ** 0.5
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(length, (length / 10, length * 20), nu=1.5)
    process = GaussianProcessRegressor(kernel + WhiteKernel(0.05, (1e-4, 1.0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a parameter at its bound is no fault
        return process.fit(features, scores)
