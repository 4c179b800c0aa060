"""Random search that draws uniformly among the architectures inside the limits; it rejects none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnmeter_nas.costs.table import IntArray

from .latency_strategy import LatencyStrategy


class LatencyConstrainedRandom(LatencyStrategy):
    """Draw architectures uniformly among those inside the limits.

    Dynamic programming over the lookup table counts them, so a limit that one random architecture in a
    million meets takes no longer than any other.

    Args:
        max_latency, min_latency: as :class:`LatencyStrategy` takes them.
        dedup: never ask for an architecture twice; the search ends when it has tried all inside the limits.
        options: as :class:`LatencyStrategy` takes them.

    >>> from nnmeter_nas.costs.table import FactorTable
    >>> from nnmeter_nas.costs.measures import Measure
    >>> from nnmeter_nas.strategies import Problem
    >>> candidates = {"stem": ("k3", "k7"), "body": ("k3", "k5")}
    >>> table = FactorTable(candidates, 1.0, {(0,): np.array([0.0, 5.0]), (1,): np.array([0.0, 2.0])})
    >>> latency = Measure("latency_ms", "ms", table)
    >>> strategy = LatencyConstrainedRandom()
    >>> strategy.begin(Problem(candidates, {"latency_ms": latency}, {"latency_ms": 4.0}))
    >>> while (row := strategy.ask()) is not None:
    ...     print(strategy.problem.architecture(row))
    ...     strategy.tell(row, 0.9)
    {'stem': 'k3', 'body': 'k5'}
    {'stem': 'k3', 'body': 'k3'}
    """

    def __init__(
        self,
        max_latency: float | Mapping[str, float] | None = None,
        min_latency: float | Mapping[str, float] | None = None,
        dedup: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(max_latency, min_latency, **options)
        self.dedup = dedup

    def pool(self, count: int) -> IntArray:
        """Draw up to ``count`` architectures, ``[n, positions]``; each only once under ``dedup``."""
        drawn = self.problem.draw_up_to(count, self._rng, self.rejected)
        if not self.dedup:
            return drawn
        first = np.unique(drawn, axis=0, return_index=True)[1]
        return drawn[np.sort(first)]

    def _propose(self) -> IntArray | None:
        if not self.dedup:
            return self.problem.draw(1, self._rng, self.rejected)[0]
        row = self._draw_new()
        self._exhausted = row is None
        return row
