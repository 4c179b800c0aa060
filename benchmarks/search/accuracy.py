"""A synthetic accuracy, to compare searches where training every candidate would take too long.

It is made up and says nothing about real networks. It copies the properties that make a search hard: some
blocks are better than others, everywhere or at one position; blocks depend on each other; more work helps,
with diminishing returns; accuracy saturates; training the same network again gives a different number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from nnmeter_nas.costs.table import IntArray
from nnmeter_nas.kernels.configuration import FloatArray

#: Shares of the variance of an architecture's score: quality of its blocks, its pairs of blocks, its work.
SHARES = {"blocks": 0.45, "pairs": 0.20, "work": 0.35}
#: Upper bound of the accuracy, and the average architecture's distance from it divided by log 2.
TOP, SPREAD = 0.95, 0.05
#: Standard deviation of the accuracy over trainings of the same architecture.
NOISE = 0.003
#: Number of random architectures that give the mean and deviation to standardise the score's parts.
_SAMPLED = 4096


class SyntheticAccuracy:
    """A random accuracy for the architectures of a space, the same for the same seed.

    The score of an architecture is the sum of three parts: for every block,
    ``g(candidate) + e(position, candidate)``; for every pair of positions, ``i(candidate, candidate)``; and
    ``1 - exp(-flops / median flops)``. ``g``, ``e`` and ``i`` are drawn from the standard normal
    distribution. Over random architectures each part has mean 0 and the variance in :data:`SHARES`. Accuracy
    is ``TOP - SPREAD * log(1 + exp(-score))``. A trial reports it with added normal noise, which depends only
    on the seed and the architecture.

    Args:
        candidates: names of the candidates at each position; the same name at another position means the
            same candidate.
        flops: floating-point operations of architectures, ``[N, positions] -> [N]``.
        seed: of everything random.
    """

    def __init__(
        self,
        candidates: Sequence[Sequence[str]],
        flops: Callable[[IntArray], FloatArray],
        seed: int,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.seed = seed
        self._flops = flops
        names = {name: rng.standard_normal() for known in candidates for name in known}
        self._quality = [
            np.array([names[name] for name in known]) + rng.standard_normal(len(known))
            for known in candidates
        ]
        sizes = [len(known) for known in candidates]
        self._pairs = {
            (p, q): rng.standard_normal((sizes[p], sizes[q])) for p, q in combinations(range(len(sizes)), 2)
        }
        sampled = rng.integers(sizes, size=(_SAMPLED, len(sizes)))
        self._median_flops = float(np.median(flops(sampled)))
        parts = self._parts(sampled)
        self._mean, self._deviation = parts.mean(axis=1), parts.std(axis=1)

    def accuracies(self, rows: IntArray) -> FloatArray:
        """Accuracy of architectures without noise, ``[N, positions] -> [N]``."""
        parts = (self._parts(rows) - self._mean[:, None]) / self._deviation[:, None]
        score = np.sqrt(list(SHARES.values())) @ parts
        return np.asarray(TOP - SPREAD * np.log1p(np.exp(-score)))

    def reported(self, rows: IntArray) -> FloatArray:
        """Accuracy that trials of architectures report, with noise, ``[N, positions] -> [N]``."""
        noise = [np.random.default_rng([self.seed, *row]).normal(0, NOISE) for row in rows.tolist()]
        return self.accuracies(rows) + np.array(noise)

    def _parts(self, rows: IntArray) -> FloatArray:
        """Parts of the score before scaling, in the order of :data:`SHARES`, ``[N, positions] -> [3, N]``."""
        blocks = sum(quality[rows[:, p]] for p, quality in enumerate(self._quality))
        pairs = sum(table[rows[:, p], rows[:, q]] for (p, q), table in self._pairs.items())
        return np.array([blocks, pairs, 1 - np.exp(-self._flops(rows) / self._median_flops)])
