"""Peak memory of all architectures of a space, learned from the model graphs of few.

What is there while an operator runs depends on few choices: those that decide its own sizes, and those of the
maps that wait beside it. So it is learned by operator, as latency is by kernel (:mod:`.influence`). The peak
of an architecture is the largest of these numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from ..errors import SpaceError
from ..graph.memory import MemoryRules, memory_by_operator, unknown_tensors
from ..kernels.configuration import FloatArray
from .influence import Learner, Marks, Sample, deciding, positions_of
from .pricing import IndexArray, Parts, Pricing, row_of
from .table import Positions

#: Most model graphs to learn from: more choices depend on each other than are worth it.
_GRAPHS = 500


class PeakMeter:
    """Peak memory in bytes.

    Args:
        rules: how the runtime uses memory.
    """

    def __init__(self, rules: MemoryRules) -> None:
        self.left_out: list[dict[str, str]] = [{}]
        self._rules = rules

    def seen(self, graph: nx.DiGraph) -> dict[str, int]:
        """Memory while each operator of a finished model graph runs."""
        self.left_out[0].update(unknown_tensors(graph))
        return memory_by_operator(graph, self._rules)

    def parts(self, seen: Sequence[Mapping[str, int]]) -> list[list[Parts]]:
        """The peak of each model graph, as one part without a name."""
        return [[{"": float(max(there.values(), default=0))} for there in seen]]


@dataclass(frozen=True, eq=False)
class Peaks:
    """A maximum of factors, where a :class:`.FactorTable` is a sum of them.

    Args:
        factors: positions -> array with one axis per position, as long as the position has candidates.

    >>> peaks = Peaks({(0,): np.array([1.0, 5.0]), (0, 1): np.array([[2.0, 3.0], [4.0, 9.0]])})
    >>> peaks.values(np.array([[0, 1], [1, 0]]))
    array([3., 5.])
    """

    factors: Mapping[Positions, FloatArray]

    def values(self, indices: IndexArray) -> FloatArray:
        """The largest factor of architectures, given as candidate indices ``[N, positions] -> [N]``."""
        found = np.zeros(len(indices))
        for positions, array in self.factors.items():
            np.maximum(found, array[tuple(indices[:, p] for p in positions)], out=found)
        return found


def learn_peaks(pricing: Pricing) -> Peaks | None:
    """Learn the peak memory of all architectures of a space.

    Args:
        pricing: of the space; its one meter is a :class:`PeakMeter`.

    Returns:
        None if the space does not say where its operators are, if it takes long to make model graphs, or if
        many choices decide the memory while one operator runs.
    """
    space = pricing.space
    if space.places is None or space.supernet is None:
        return None

    def memory(sample: Sample) -> Marks:
        if len(learner.samples) >= _GRAPHS:
            raise SpaceError(f"{_GRAPHS} model graphs do not show which choices decide the memory")
        [there] = pricing.seen(row_of(space, sample))
        return there

    learner = Learner(memory, space.candidates, space.places)
    try:
        learner.learn()
    except SpaceError:
        return None
    factors: dict[Positions, FloatArray] = {}
    for name, influence in learner.influences.items():
        labels = deciding([influence], space.candidates)
        shape = [len(space.candidates[label]) for label in labels]
        found: list[Any] = [
            learner.value(name, number) or 0 for number in influence.samples(labels, space.candidates)
        ]
        values = np.array(found, dtype=np.float64).reshape(shape)
        positions = positions_of(labels, space.candidates)
        factors[positions] = np.maximum(values, factors.get(positions, 0.0))
    return Peaks(factors)
