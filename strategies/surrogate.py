"""A model of the metric of architectures, learned from the trials that have ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from nnmeter_nas.costs.table import IntArray
from nnmeter_nas.kernels.configuration import FloatArray

#: Lengths over which scores change, in units of the typical distance of architectures, and shares of noise:
#: the pair that makes the trials likeliest is taken.
_LENGTHS, _NOISES = (0.35, 0.7, 1.4, 2.8), (1e-3, 1e-2, 1e-1)
#: How much a candidate counts against a number.
_OF_CANDIDATES = 0.3


class Features:
    """What the model sees of architectures: numbers that tell much, and which candidate stands where.

    All are standardised; those of candidates then shrink, as they matter less than what the candidates make
    of the network.

    Args:
        sizes: number of candidates of each position.
        numbers: numbers of architectures, ``[N, positions] -> [N, numbers]``.
        sample: architectures to standardise by, ``[N, positions]``.
    """

    def __init__(
        self, sizes: Sequence[int], numbers: Callable[[IntArray], FloatArray], sample: IntArray
    ) -> None:
        self._sizes, self._numbers = tuple(sizes), numbers
        raw = self._raw(sample)
        self._shift, self._scale = raw.mean(axis=0), raw.std(axis=0)
        self._scale[self._scale == 0] = np.inf  # tells nothing
        self._scale[: sum(self._sizes)] /= _OF_CANDIDATES

    def of(self, rows: IntArray) -> FloatArray:
        """Features of architectures, ``[N, positions] -> [N, features]``."""
        return np.asarray((self._raw(rows) - self._shift) / self._scale)

    def _raw(self, rows: IntArray) -> FloatArray:
        columns = [rows[:, position, None] == np.arange(size) for position, size in enumerate(self._sizes)]
        return np.concatenate([*columns, self._numbers(rows)], axis=1).astype(float)


class Scores:
    """Metrics as scores: standardised, after very poor ones were raised to a fence.

    A metric has any scale, and a few architectures that learn nothing would hide all other differences. The
    fence is Tukey's: one and a half times the range of the middle half below it ("Exploratory Data Analysis",
    1977). The better metrics keep their distances, which is what a hypervolume is made of.

    >>> scores = Scores(np.array([0.1, 0.6, 0.7, 0.8, 0.9]))
    >>> scores.metrics(scores.of(np.array([0.1, 0.75, 1.0]))).round(3).tolist()
    [0.3, 0.75, 1.0]
    """

    def __init__(self, metrics: npt.NDArray[np.floating]) -> None:
        low, high = np.quantile(metrics, [0.25, 0.75])
        self._fence = low - 1.5 * (high - low) if high > low else -np.inf
        fenced = np.maximum(metrics, self._fence)
        self._mean, self._deviation = float(fenced.mean()), float(fenced.std()) or 1.0

    def of(self, metrics: FloatArray) -> FloatArray:
        """Scores of metrics."""
        return np.asarray((np.maximum(metrics, self._fence) - self._mean) / self._deviation)

    def metrics(self, scores: FloatArray) -> FloatArray:
        """Metrics of scores, the inverse of :meth:`of`."""
        return np.asarray(self._mean + self._deviation * scores)


class Surrogate:
    """A Gaussian process that predicts scores, with a Matern covariance of order 3/2.

    Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006: equations 2.25 and 2.26 predict,
    4.17 is the covariance, and 5.8 the likelihood that chooses its length and the noise. The likelihood needs
    one decomposition for each length, so scikit-learn's search by gradient takes ten times as long.
    """

    def __init__(self, features: FloatArray, scores: FloatArray) -> None:
        """Learn the ``scores [N]`` of architectures with ``features [N, features]``."""
        self._features, self._mean = features, float(scores.mean())
        centred = scores - self._mean
        distances = _distances(features, features)
        self._unit = float(np.median(distances[distances > 0])) if (distances > 0).any() else 1.0
        best = -np.inf
        for length in _LENGTHS:
            values, vectors = np.linalg.eigh(self._covariance(distances, length))
            squares = (vectors.T @ centred) ** 2
            for noise in _NOISES:
                spread = np.maximum(values, 0.0) + noise
                variance = max(float((squares / spread).mean()), 1e-12)
                likelihood = -len(centred) * np.log(variance) - float(np.log(spread).sum())
                if likelihood > best:
                    best, self._length, self._noise, self._variance = likelihood, length, noise, variance
        noisy = self._covariance(distances, self._length) + self._noise * np.eye(len(centred))
        self._factor = cho_factor(noisy, lower=True)
        self._weights = cho_solve(self._factor, centred)

    def predict(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of the scores of architectures, ``[N]`` each."""
        shared = self._covariance(_distances(features, self._features), self._length)
        known = solve_triangular(self._factor[0], shared.T, lower=True)
        left = np.maximum(1 - (known**2).sum(axis=0), 1e-12)
        return self._mean + shared @ self._weights, np.sqrt(self._variance * left)

    def _covariance(self, distances: FloatArray, length: float) -> FloatArray:
        far = np.sqrt(3) * distances / (length * self._unit)
        return np.asarray((1 + far) * np.exp(-far))


def _distances(some: FloatArray, others: FloatArray) -> FloatArray:
    squares = (some**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * some @ others.T
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))
