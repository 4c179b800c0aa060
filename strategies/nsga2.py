"""NSGA-II, the parts: sorting, crowding, selection and variation of rows of candidate indices.

K. Deb, A. Pratap, S. Agarwal, T. Meyarivan: A fast and elitist multiobjective genetic algorithm: NSGA-II.
IEEE Transactions on Evolutionary Computation 6(2), 2002. Every objective is minimised. The paper's variation
is for real numbers and for bits; here a gene is the candidate of a position, so crossover is uniform and a
mutated gene becomes any other candidate.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nnmeter_nas.costs.table import IntArray
from nnmeter_nas.kernels.configuration import FloatArray


def ranks(objectives: npt.ArrayLike) -> IntArray:
    """Fast non-dominated sort: the front that each point is in, 0 for those that nothing dominates.

    A point dominates another if it is nowhere worse and somewhere better; equal points share a front.

    Args:
        objectives: ``[N, objectives]``.

    Returns:
        ``[N]``.

    >>> ranks([[1, 2], [2, 1], [2, 2], [3, 3]])
    array([0, 0, 1, 2])
    """
    points = np.asarray(objectives, dtype=float)
    no_worse = np.all(points[:, None] <= points[None], axis=2)
    dominates: npt.NDArray[np.bool_] = no_worse & np.any(points[:, None] < points[None], axis=2)
    dominators = dominates.sum(axis=0)
    found, front = np.full(len(points), -1, dtype=np.int64), 0
    while (current := (found < 0) & (dominators == 0)).any():
        found[current] = front
        dominators -= dominates[current].sum(axis=0)
        front += 1
    return found


def crowding(objectives: npt.ArrayLike) -> FloatArray:
    """Crowding distance of the points of one front: how far apart the neighbours of each lie.

    The sum, over objectives, of the distance between the next smaller and the next larger point, as a share
    of the front's range; infinite at both ends of an objective. One that is the same everywhere adds nothing.

    Args:
        objectives: ``[N, objectives]``.

    Returns:
        ``[N]``.

    >>> crowding([[0, 4], [1, 2], [4, 0]]).tolist()
    [inf, 2.0, inf]
    """
    points = np.asarray(objectives, dtype=float)
    distance = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        if len(column) and ordered[-1] > ordered[0]:
            distance[order[[0, -1]]] = np.inf
            distance[order[1:-1]] += (ordered[2:] - ordered[:-2]) / (ordered[-1] - ordered[0])
    return distance


def crowding_of_all(objectives: npt.ArrayLike, front: IntArray) -> FloatArray:
    """Crowding distance of each point within its own front, ``[N]``; ``front`` as :func:`ranks` gives it."""
    points = np.asarray(objectives, dtype=float)
    distance = np.zeros(len(points))
    for number in np.unique(front):
        distance[front == number] = crowding(points[front == number])
    return distance


def survivors(objectives: npt.ArrayLike, count: int) -> IntArray:
    """The ``count`` best points: front by front, of the last front those in the least crowded places.

    Returns:
        Their indices, the best first; all if there are no more than ``count``.
    """
    front = ranks(objectives)
    order: IntArray = np.lexsort((-crowding_of_all(objectives, front), front))
    return order[:count]


def tournament(front: IntArray, distance: FloatArray, rng: np.random.Generator) -> int:
    """Binary tournament: of two random points the one of the better front, or else the less crowded one."""
    first, second = (int(i) for i in rng.choice(len(front), size=2, replace=len(front) < 2))
    better = (front[second], -distance[second]) < (front[first], -distance[first])
    return second if better else first


def uniform_crossover(first: IntArray, second: IntArray, rng: np.random.Generator) -> IntArray:
    """A row that has each gene of either parent with even chances."""
    return np.where(rng.random(len(first)) < 0.5, first, second)


def mutate(row: IntArray, sizes: Sequence[int], rate: float, rng: np.random.Generator) -> IntArray:
    """``row`` in which each gene, with probability ``rate``, is another candidate, each equally likely."""
    changed = row.copy()
    for position in np.flatnonzero(rng.random(len(row)) < rate).tolist():
        if sizes[position] > 1:
            other = int(rng.integers(sizes[position] - 1))
            changed[position] = other + (other >= row[position])
    return changed
