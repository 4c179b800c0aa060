"""Find the least, most and closest architectures of spaces that are far too large to list.

A factor table is a sum over few positions each, so dynamic programming finds the best architectures: of all
ways to continue from a state (see :mod:`nnmeter_nas.solve.stages`), it keeps only the best.
"""

from __future__ import annotations

import math

import numpy as np

from ..costs.table import LISTED, FactorTable, IntArray, every_architecture
from ..errors import LookupTableError
from .sampling import UniformSampler
from .stages import stages, widest_states

#: Largest number of states of partial architectures.
_WIDTH = 10_000
#: An architecture below this many ms runs nothing; the smallest kernel takes a thousand times as long.
NOTHING_MS = 1e-6
#: So many of the fastest architectures of a space too large to list may run nothing.
_IDLE = 1000
#: Least number of random architectures to improve in the search for close ones; visits of each position.
_STARTS, _ROUNDS = 1000, 3


def least(table: FactorTable, count: int) -> IntArray:
    """The ``count`` architectures of least value, exactly, in ascending order.

    Equal ones come in index order in a space of up to ``LISTED`` architectures, else in a fixed order.

    Args:
        table: the measure.
        count: number of architectures; a smaller space returns fewer.

    Returns:
        Candidate indices ``[n, positions]``.

    Raises:
        LookupTableError: so many positions interact that ranking would list a large space.

    >>> factors = {(1,): np.array([0.0, 3.0]), (0, 1): np.array([[2.0, 0.0], [1.0, 0.0]])}
    >>> least(FactorTable.of_sizes((2, 2), 0.0, factors), 2)
    array([[1, 0],
           [0, 0]])
    """
    if math.prod(table.sizes) > LISTED:
        return _least_by_stages(table, count)
    every = every_architecture(table.sizes)
    return every[np.argsort(table.values(every), kind="stable")[:count]]


def _least_by_stages(table: FactorTable, count: int) -> IntArray:
    """As :func:`least`: find the best ways to continue from each state, from the last stage to the first."""
    if (width := widest_states(table)) > _WIDTH:
        raise LookupTableError(
            f"too many choices interact to rank all architectures: {width} ways to choose have to be told "
            "apart at once; rank a sample of them"
        )
    found = stages(table)
    best = np.zeros((1, 1))  # [states, ways to continue], the best first
    steps: list[tuple[IntArray, IntArray]] = []  # candidate, and index of the way to continue after it
    for stage in reversed(found):
        ways = best.shape[1]
        ahead = (stage.costs[:, :, None] + best[stage.successors]).reshape(len(stage.costs), -1)
        chosen = np.argsort(ahead, axis=1, kind="stable")[:, :count]
        best = np.take_along_axis(ahead, chosen, axis=1)
        steps.append(np.divmod(chosen, ways))
    rows = np.empty((best.shape[1], len(found)), dtype=np.int64)
    way = np.arange(len(rows))
    state = np.zeros(len(rows), dtype=np.int64)
    for stage, (candidates, ways_on) in zip(found, reversed(steps), strict=True):
        candidate, way = candidates[state, way], ways_on[state, way]
        rows[:, stage.position] = candidate
        state = stage.successors[state, candidate]
    return rows


def fastest(table: FactorTable, count: int) -> IntArray:
    """The ``count`` architectures of least latency, the fastest first; errors as :func:`least`."""
    return least(table, count)


def fastest_running(table: FactorTable) -> IntArray:
    """The fastest architecture that runs anything, ``[positions]``; errors as :func:`least`.

    An architecture whose output does not depend on its input runs nothing. If all do, or very many of a space
    too large to list, the fastest of all is returned.

    >>> fastest_running(FactorTable.of_sizes((3,), 0.0, {(0,): np.array([2.0, 0.0, 0.5])}))
    array([2])
    """
    best = fastest(table, 1)
    if table.values(best)[0] < NOTHING_MS:
        ranked = fastest(table, size if (size := math.prod(table.sizes)) <= LISTED else _IDLE)
        running = ranked[table.values(ranked) >= NOTHING_MS]
        best = running if len(running) else best
    return best[0]


def slowest(table: FactorTable, count: int) -> IntArray:
    """The ``count`` architectures of most latency, the slowest first; errors as :func:`least`."""
    return least(-table, count)


def latency_reach(table: FactorTable) -> tuple[float, float]:
    """Latency in ms of the fastest and the slowest architecture; errors as :func:`least`."""
    low, high = (float(table.values(best(table, 1))[0]) for best in (fastest, slowest))
    return low, high


def closest(table: FactorTable, target: float, count: int, limit: float = np.inf, seed: int = 0) -> IntArray:
    """Architectures whose value is close to ``target``, the closest first.

    So many are that close that no search can find the very closest. Random architectures within the limit are
    improved one position at a time, so another seed finds other architectures.

    Args:
        table: latency in ms, or another measure.
        target: value in the table's unit.
        count: largest number of architectures.
        limit: largest allowed value.
        seed: seed of the random architectures.

    Returns:
        Candidate indices ``[n, positions]``, each once; n may be less than ``count``.

    Raises:
        SearchError: all architectures exceed the limit.
    """
    sizes = table.sizes
    random = np.random.default_rng(seed)
    found = UniformSampler(table, at_most=limit).draw(max(_STARTS, 4 * count), random)
    for position in np.tile(np.arange(len(sizes)), _ROUNDS):
        changed = np.repeat(found[:, None], sizes[position], axis=1)
        changed[:, :, position] = np.arange(sizes[position])
        values = table.values(changed.reshape(-1, len(sizes))).reshape(changed.shape[:2])
        misses = np.where(values <= limit, np.abs(values - target), np.inf)
        found = changed[np.arange(len(found)), misses.argmin(axis=1)]
    found = np.unique(found, axis=0)
    return found[np.argsort(np.abs(table.values(found) - target), kind="stable")[:count]]


def random_architectures(table: FactorTable, count: int, seed: int = 0) -> IntArray:
    """Draw candidate indices ``[count, positions]``, each uniformly."""
    return np.random.default_rng(seed).integers(table.sizes, size=(count, len(table.sizes)))
