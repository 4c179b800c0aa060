"""Evolution towards the Pareto front of accuracy and latency, by NSGA-II."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnmeter_nas.costs.table import IntArray
from nnmeter_nas.kernels.configuration import FloatArray

from . import nsga2
from .latency_strategy import LatencyStrategy, check_whole, key

#: After this many children in a row that are already known, one is drawn at random instead.
_TRIES = 100


class ParetoEvolution(LatencyStrategy):
    """NSGA-II: maximise the metric of trials and minimise the objectives.

    As in Deb et al. (see :mod:`nnmeter_nas.strategies.nsga2`), each generation has as many children as
    parents, bred from the winners of binary tournaments. The best fronts of both survive, and from the last
    front the least crowded. Differences from the paper:

    * Genes are candidates: crossover is uniform, and a mutated position becomes any other candidate.
    * The first generation is spread: the range of the first objective inside the limits is cut into
      ``population`` equal parts, and each gives one architecture. Random architectures have similar
      latencies; the front does not.
    * A child outside the limits is repaired: its costliest blocks move down the table, as few as possible. In
      the paper, children that break a constraint stay and are dominated; here each would cost a trial.
    * No architecture is tried twice. A child that is already known is bred again. After 100 such children in
      a row, one is drawn uniformly among the untried architectures inside the limits.
    * A failed trial belongs to no generation; another child takes its place.

    Up to ``population`` trials can run at once; :meth:`ask` returns None until all of them have ended.
    The default is small, so a few trials give several generations.

    Args:
        population: architectures per generation, at least 2.
        max_latency, min_latency: as :class:`LatencyStrategy` takes them.
        mutation: probability that a position of a child changes; if None, one over the number of positions,
            as in the paper.
        crossover: probability that a child has two parents; by default as in the paper.
        options: as :class:`LatencyStrategy` takes them.

    Raises:
        ValueError, TypeError: an argument is not as described above.
    """

    def __init__(
        self,
        population: int = 10,
        max_latency: float | Mapping[str, float] | None = None,
        min_latency: float | Mapping[str, float] | None = None,
        mutation: float | None = None,
        crossover: float = 0.9,
        **options: Any,
    ) -> None:
        super().__init__(max_latency, min_latency, **options)
        self.population = check_whole("population", population, 2)
        self.mutation = mutation
        self.crossover = crossover
        for name, share in (("mutation", mutation), ("crossover", crossover)):
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"{name}={share!r} must be a probability from 0 to 1")

    def _start(self) -> None:
        positions = len(self.problem.sizes)
        self._rate = 1 / positions if self.mutation is None else self.mutation
        # In random order, because a search may end within its first generation.
        self._first = list(self._rng.permutation(self.problem.spread(self.population, self._rng)))
        self._parents = np.empty((0, positions), dtype=np.int64)
        self._objectives = np.empty((0, 1 + len(self.problem.objectives)))
        self._children: list[tuple[IntArray, FloatArray]] = []
        self._pending = 0

    def _propose(self) -> IntArray | None:
        if len(self._children) + self._pending == self.population:
            return None
        row = self._child() if len(self._parents) else self._founder()
        row = self._draw_new() if row is None else row
        self._exhausted = row is None
        self._pending += row is not None
        return row

    def _learn(self, row: IntArray, metric: float | None) -> None:
        self._pending -= 1
        if metric is not None:
            objectives = self.problem.objective_values(row[None])[0]
            self._children.append((row, np.array([-metric, *objectives])))
        if len(self._children) == self.population:
            rows = np.concatenate([self._parents, [row for row, _ in self._children]])
            objectives = np.concatenate([self._objectives, [objectives for _, objectives in self._children]])
            best = nsga2.survivors(objectives, self.population)
            self._parents, self._objectives, self._children = rows[best], objectives[best], []

    def _founder(self) -> IntArray | None:
        """Return a new architecture of the first generation; None if all were asked for."""
        while self._first:
            row = self._first.pop()
            if key(row) not in self._asked:
                return row
        return None

    def _child(self) -> IntArray | None:
        """Breed a new architecture from parents; None if many attempts give none."""
        front = nsga2.ranks(self._objectives)
        distance = nsga2.crowding_of_all(self._objectives, front)
        for _ in range(_TRIES):
            first, second = (self._parents[nsga2.tournament(front, distance, self._rng)] for _ in range(2))
            crossed = self._rng.random() < self.crossover
            bred = nsga2.uniform_crossover(first, second, self._rng) if crossed else first
            bred = nsga2.mutate(bred, self.problem.sizes, self._rate, self._rng)
            self.rejected += self.problem.reasons(bred[None])
            child = self.problem.repair(bred, self._rng)
            if child is not None and key(child) not in self._asked:
                return child
        return None
