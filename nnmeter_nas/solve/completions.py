"""Completions: count the ways to complete a partial architecture within a budget.

Each decision has a least cost that it makes unavoidable later. Subtract it: then every decision on the walk
through :mod:`~nnmeter_nas.solve.stages` costs 0 or more, and the least architecture costs 0. The budget is
the rest of the limit. It is split into bins, and costs are rounded *down* to whole bins. Dynamic programming
from the last stage to the first then counts the completions of each state, for every amount of the budget
spent. It misses no architecture within the limit, but also counts some that exceed it by less than a bin per
decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..costs.table import IntArray
from ..kernels.configuration import FloatArray
from .stages import Stage, least_to_come


class Completions:
    """Counts of the completions of each state, and random draws from them.

    Args:
        found: the stages.
        budget: the most that a sum may be above the least sum.
        at_least: the least that a sum must be above the least sum; no limit if it is 0 or less.
        bins: number of parts of the budget.
        whole: count in integers, which hold up to 2**63, instead of in floating-point numbers.

    Attributes:
        total: number of architectures counted: all within the budget, and a few others.

    >>> from nnmeter_nas.costs.table import FactorTable
    >>> from nnmeter_nas.solve.stages import stages
    >>> table = FactorTable.of_sizes((2, 2, 2), 0.0, {(p,): np.array([1.0, 2.0]) for p in range(3)})
    >>> completions = Completions(stages(table), budget=1.0, at_least=0.0, bins=100)
    >>> completions.total
    4
    >>> completions.every().tolist()
    [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]
    """

    def __init__(
        self, found: Sequence[Stage], budget: float, at_least: float, bins: int, whole: bool = True
    ) -> None:
        self._stages = found
        self._beyond = bins + 1  # any amount that exceeds the budget
        self._bins: list[IntArray] = []  # [states, candidates] of each stage
        rounding = 0.0
        ahead = least_to_come(found)
        for stage, now, then in zip(found, ahead, ahead[1:], strict=False):
            in_bins = (stage.costs + then[stage.successors] - now[:, None]) / (budget / bins)
            rounded = np.minimum(np.floor(in_bins), self._beyond)
            rounding += float(np.max(in_bins - rounded, where=rounded < self._beyond, initial=0.0))
            self._bins.append(np.maximum(rounded, 0).astype(np.int64))
        last = np.zeros((1, bins + 2), dtype=np.int64 if whole else np.float64)
        last[0, max(0, int(np.ceil(max(at_least, 0.0) / (budget / bins) - rounding))) : self._beyond] = 1
        self._ways = [last]  # [states, bins spent]: before each stage, and after the last
        for stage, rounded_costs in zip(reversed(found), reversed(self._bins), strict=True):
            self._ways.append(_ways_before(stage, rounded_costs, self._ways[-1]))
        self._ways.reverse()
        self.total = self._ways[0][0, 0].item()

    def draw(self, count: int, rng: np.random.Generator) -> IntArray:
        """Draw architectures ``[count, positions]``, each uniformly from all that are counted."""
        rows = np.empty((count, len(self._stages)), dtype=np.int64)
        state, spent = np.zeros((2, count), dtype=np.int64)
        each = np.arange(count)
        for number, stage in enumerate(self._stages):
            states, bins = self._reached(number, state, spent)
            up_to = self._ways[number + 1][states, bins].cumsum(axis=1)
            candidate = (up_to < _one_of(up_to[:, -1], rng)[:, None]).sum(axis=1)
            rows[:, stage.position] = candidate
            state, spent = states[each, candidate], bins[each, candidate]
        return rows

    def every(self) -> IntArray:
        """All counted architectures, ``[total, positions]``."""
        rows = np.empty((1, len(self._stages)), dtype=np.int64)
        state, spent = np.zeros((2, 1), dtype=np.int64)
        for number, stage in enumerate(self._stages):
            states, bins = self._reached(number, state, spent)
            row, candidate = np.nonzero(self._ways[number + 1][states, bins])
            rows = rows[row]
            rows[:, stage.position] = candidate
            state, spent = states[row, candidate], bins[row, candidate]
        return rows

    def _reached(self, number: int, state: IntArray, spent: IntArray) -> tuple[IntArray, IntArray]:
        """State and bins spent after each candidate of a stage, ``[N, candidates]``, given those before."""
        spent_then = np.minimum(spent[:, None] + self._bins[number][state], self._beyond)
        return self._stages[number].successors[state], spent_then


def _ways_before(stage: Stage, bins: IntArray, after: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Numbers of completions before a stage, ``[states, bins spent]``, given those after it."""
    width = after.shape[1]
    before = np.zeros((len(bins), width), dtype=after.dtype)
    for ways, successors, costs in zip(before, stage.successors.tolist(), bins.tolist(), strict=True):
        for successor, cost in zip(successors, costs, strict=True):
            ways[: width - cost] += after[successor, cost:]
    return before


def _one_of(totals: npt.NDArray[Any], rng: np.random.Generator) -> IntArray | FloatArray:
    """For each total, a random number above 0 and at most the total; integers for integer totals."""
    if totals.dtype == np.int64:
        return rng.integers(1, totals, endpoint=True)
    return totals * (1.0 - rng.random(len(totals)))
