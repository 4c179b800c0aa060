"""The best architectures known of a space too large to list: a long evolution on accuracies without noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nnmeter_nas.costs.table import IntArray
from nnmeter_nas.kernels.configuration import FloatArray
from nnmeter_nas.solve.problem import Problem
from nnmeter_nas.strategies import nsga2

#: Architectures of a generation, and generations: hundreds of times what a search may try.
_POPULATION, _GENERATIONS = 200, 300


def evolved(
    problem: Problem, accuracies: Callable[[IntArray], FloatArray], first: IntArray, seed: int
) -> IntArray:
    """The last generation of NSGA-II towards high accuracy and low latency, ``[N, positions]``.

    Args:
        problem: gives the latency, the objective.
        accuracies: accuracy of architectures, ``[N, positions] -> [N]``.
        first: architectures to start from, ``[N, positions]``.
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)

    def best(rows: IntArray) -> IntArray:
        rows = np.unique(rows[problem.inside(rows)], axis=0)
        points = np.column_stack([-accuracies(rows), problem.objective_values(rows)])
        return rows[nsga2.survivors(points, _POPULATION)]

    parents = best(first[:: len(first) // (5 * _POPULATION) or 1])
    for _ in range(_GENERATIONS):
        mothers, fathers = (parents[rng.integers(len(parents), size=_POPULATION)] for _ in range(2))
        children = np.where(rng.random(mothers.shape) < 0.5, mothers, fathers)
        mutated = rng.random(children.shape) < 1 / children.shape[1]
        children = np.where(mutated, rng.integers(problem.sizes, size=children.shape), children)
        parents = best(np.concatenate([parents, children]))
    return parents
