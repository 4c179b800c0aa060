"""The fastest, slowest and closest architectures of a space that is far too large to list.

Latency is a sum over positions and interacting pairs of positions, so the best architectures are found by
dynamic programming: of all partial architectures that later positions cannot tell apart, only the best stay.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from .errors import LookupTableError
from .kernels import FloatArray
from .lut import LatencyTable

IntArray = npt.NDArray[np.int64]

#: Partial architectures to tell apart at most.
_WIDTH = 10_000
#: Random architectures that the search for close ones starts from, at least; how often it visits a position.
_STARTS, _ROUNDS = 1000, 3


def least(
    costs: Sequence[FloatArray], pairs: Mapping[tuple[int, int], FloatArray], count: int
) -> IntArray:
    """The ``count`` choices of least total cost, least first, exactly; equal ones in order of index.

    Args:
        costs: of every candidate, an array ``[candidates]`` for each position.
        pairs: cost on top for two positions ``(p, q)``, p < q: ``[candidates of p, candidates of q]``.
        count: how many; fewer come back from a space that has fewer.

    Returns:
        Candidate indices ``[n, positions]``.

    Raises:
        LookupTableError: so many positions interact that this would be listing the space.

    >>> least([np.array([0.0, 1.0]), np.array([0.0, 3.0])], {(0, 1): np.array([[2.0, 0.0], [0.0, 0.0]])}, 2)
    array([[1, 0],
           [0, 0]])
    """
    before: dict[int, list[int]] = defaultdict(list)
    for p, q in pairs:
        before[q].append(p)
    still_open = {p: max(q for a, q in pairs if a == p) for p, _ in pairs}
    kept: dict[tuple[int, ...], list[tuple[float, tuple[int, ...]]]] = {(): [(0.0, ())]}
    for q, column in enumerate(costs):
        met_later = [p for p in range(q + 1) if still_open.get(p, q) > q]
        if (width := math.prod(len(costs[p]) for p in met_later)) > _WIDTH:
            raise LookupTableError(
                f"too many choices interact to rank all architectures: {width} ways to choose up to position "
                f"{q} have to be told apart; rank a sample of them"
            )
        grown = defaultdict(list)
        for cost, chosen in (partial for partials in kept.values() for partial in partials):
            for candidate, own in enumerate(column.tolist()):
                among = sum(float(pairs[p, q][chosen[p], candidate]) for p in before[q])
                choices = (*chosen, candidate)
                grown[tuple(choices[p] for p in met_later)].append((cost + own + among, choices))
        kept = {seen: heapq.nsmallest(count, partials) for seen, partials in grown.items()}
    [best] = kept.values()
    return np.array([choices for _, choices in best], dtype=np.int64)


def closest(
    latencies: Callable[[IntArray], FloatArray],
    sizes: Sequence[int],
    target: float,
    count: int,
    limit: float = np.inf,
    seed: int = 0,
) -> IntArray:
    """Architectures whose latency lies next to ``target``, the closest first.

    So many lie there that no search can name the very closest; these are what random architectures become
    when one position after another is changed for the better, and differ from each other accordingly.

    Args:
        latencies: gives the latency in ms of architectures ``[n, positions]``.
        sizes: number of candidates of each position.
        target: in ms.
        count: how many at most.
        limit: latency in ms that none may exceed.
        seed: of the random architectures.

    Returns:
        Candidate indices ``[n, positions]``, each once; n may be less than ``count``.
    """
    random = np.random.default_rng(seed)
    found = random.integers(sizes, size=(max(_STARTS, 4 * count), len(sizes)))
    for position in np.tile(np.arange(len(sizes)), _ROUNDS):
        changed = np.repeat(found[:, None], sizes[position], axis=1)
        changed[:, :, position] = np.arange(sizes[position])
        misses = _miss(latencies(changed.reshape(-1, len(sizes))), target, limit).reshape(changed.shape[:2])
        found = changed[np.arange(len(found)), misses.argmin(axis=1)]
    found = np.unique(found, axis=0)
    ms = latencies(found)
    found, ms = found[ms <= limit], ms[ms <= limit]
    return found[np.argsort(np.abs(ms - target), kind="stable")[:count]]


def _miss(ms: FloatArray, target: float, limit: float) -> FloatArray:
    """How far off latencies are; one above the limit is worse than any below it."""
    beyond = np.abs(ms - target)
    return np.where(ms <= limit, beyond, beyond.max() + ms)


def fastest(table: LatencyTable, count: int) -> IntArray:
    """The ``count`` fastest architectures, the fastest first; errors as :func:`least`."""
    return least(*_costs(table), count)


def slowest(table: LatencyTable, count: int) -> IntArray:
    """The ``count`` slowest architectures, the slowest first; errors as :func:`least`."""
    costs, pairs = _costs(table)
    return least([-ms for ms in costs], {pair: -ms for pair, ms in pairs.items()}, count)


def latency_reach(table: LatencyTable) -> tuple[float, float]:
    """Latency in ms of the fastest and of the slowest architecture; errors as :func:`least`."""
    low, high = (float(table.latencies(best(table, 1))[0]) for best in (fastest, slowest))
    return low, high


def random_architectures(table: LatencyTable, count: int, seed: int = 0) -> IntArray:
    """Candidate indices ``[count, positions]``, each drawn evenly."""
    sizes = [len(known) for known in table.candidates.values()]
    return np.random.default_rng(seed).integers(sizes, size=(count, len(sizes)))


def _costs(table: LatencyTable) -> tuple[list[FloatArray], dict[tuple[int, int], FloatArray]]:
    """What :func:`least` takes, for the latency of ``table`` less its stationary part."""
    position = {label: i for i, label in enumerate(table.labels)}
    pairs = {(position[a], position[b]): ms for (a, b), ms in table.pair_ms.items()}
    forward = {(min(pair), max(pair)): ms if pair[0] < pair[1] else ms.T for pair, ms in pairs.items()}
    return [table.block_ms[label] for label in table.labels], forward
