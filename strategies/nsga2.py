"""The parts of NSGA-II: sorting, crowding, selection and variation of rows of candidate indices.

K. Deb, A. Pratap, S. Agarwal, T. Meyarivan: A fast and elitist multiobjective genetic algorithm: NSGA-II.
IEEE Transactions on Evolutionary Computation 6(2), 2002. Every objective is minimised. The paper varies real
numbers and bits. Here a gene is the candidate at a position, so crossover is uniform and a mutated gene
becomes any other candidate.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nnmeter_nas.costs.table import IntArray
from nnmeter_nas.kernels.configuration import FloatArray


def ranks(objectives: npt.ArrayLike) -> IntArray:
    """Return the front of each point (fast non-dominated sort); front 0 holds the points nothing dominates.

    A point dominates another if it is better in some objective and worse in none. Equal points share a front.

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
    """Return the crowding distance of the points of one front: how far apart each point's neighbours are.

    It is the sum, over objectives, of the distance between the next smaller and the next larger point, as a
    share of the front's range. It is infinite at both ends of an objective; a constant objective adds 0.

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
    """Return each point's crowding distance within its front, ``[N]``; ``front`` comes from :func:`ranks`."""
    points = np.asarray(objectives, dtype=float)
    distance = np.zeros(len(points))
    for number in np.unique(front):
        distance[front == number] = crowding(points[front == number])
    return distance


def survivors(objectives: npt.ArrayLike, count: int) -> IntArray:
    """Select the ``count`` best points: front by front, and from the last front the least crowded.

    Returns:
        Their indices, the best first; all points if there are at most ``count``.
    """
    front = ranks(objectives)
    order: IntArray = np.lexsort((-crowding_of_all(objectives, front), front))
    return order[:count]


def tournament(front: IntArray, distance: FloatArray, rng: np.random.Generator) -> int:
    """Binary tournament: of two random points, return the one in the better front, else the less crowded."""
    first, second = (int(i) for i in rng.choice(len(front), size=2, replace=len(front) < 2))
    better = (front[second], -distance[second]) < (front[first], -distance[first])
    return second if better else first


def uniform_crossover(first: IntArray, second: IntArray, rng: np.random.Generator) -> IntArray:
    """Return a row that takes each gene from either parent with equal chance."""
    return np.where(rng.random(len(first)) < 0.5, first, second)


def mutate(row: IntArray, sizes: Sequence[int], rate: float, rng: np.random.Generator) -> IntArray:
    """Replace each gene of ``row``, with probability ``rate``, by another candidate, each equally likely."""
    changed = row.copy()
    for position in np.flatnonzero(rng.random(len(row)) < rate).tolist():
        if sizes[position] > 1:
            other = int(rng.integers(sizes[position] - 1))
            changed[position] = other + (other >= row[position])
    return changed
