"""Survey: evaluate every architecture of a space, for the least values and the distribution of all values.

:mod:`.ranking` finds the least without listing the space, but only if few choices interact. A survey works
for any table, and its quantiles are exact up to the width of a bin.

Architectures are numbered in index order. The architectures of a group differ only in the last positions.
The factors of these positions are summed once for all groups; the factors of earlier positions add one number
per group. Any range of groups is a separate piece of work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np

from ..costs.table import FactorTable, IntArray
from ..errors import LookupTableError
from ..kernels.configuration import FloatArray
from ..parallel.bulk import spread
from .stages import least_to_come, narrowed, stages

#: Largest size of a group, unless one position has more candidates: its values stay in the cache.
_GROUP = 2**15
#: Approximate number of architectures in a chunk of work, which takes a second or less.
_CHUNK = 2**26
#: Largest number of transitions to find the bounds of a measure.
_TRANSITIONS = 100_000


@dataclass(frozen=True, eq=False)
class Survey:
    """The least architectures of a space, and the distribution of all values.

    Attributes:
        least: the architectures of least value, ascending, equal ones in index order, ``[n, positions]``.
        edges: edges of the bins of values, including the outer ones, ``[bins + 1]``.
        counts: number of architectures in each bin, which includes its lower edge, ``[bins]``.
    """

    least: IntArray
    edges: FloatArray
    counts: IntArray

    @property
    def architectures(self) -> int:
        """Number of architectures."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """The value that ``share`` (0 to 1) of all do not exceed; off by at most the width of a bin."""
        reached = np.cumsum(self.counts) >= share * self.architectures
        return float(self.edges[int(np.argmax(reached)) + 1])


def survey(table: FactorTable, count: int = 20, bins: int = 10_000) -> Survey:
    """Evaluate every architecture, on all workers in use, see :mod:`nnmeter_nas.parallel.bulk`.

    Args:
        table: the measure, such as a lookup table's.
        count: number of architectures of least value to return.
        bins: number of bins of the distribution, equally wide.

    Raises:
        LookupTableError: ``count`` or ``bins`` is less than 1, or there are 2^63 or more architectures.
        WorkerError: workers died repeatedly.
    """
    if count < 1 or bins < 1:
        raise LookupTableError(f"count={count} and bins={bins} must be at least 1")
    if math.prod(table.sizes) >= 2**63:
        raise LookupTableError(
            f"{math.prod(table.sizes)} architectures are too many to look at each; rank a sample of them"
        )
    low, high = _lower_bound(table), -_lower_bound(-table)
    groups = math.prod(table.sizes[: _first_of_group(table.sizes)])
    in_chunk = max(1, _CHUNK * groups // math.prod(table.sizes))
    chunks = [
        _Range(table, start, min(start + in_chunk, groups), count, low, high, bins)
        for start in range(0, groups, in_chunk)
    ]
    found = reduce(_joined, spread(_survey_range, chunks, "evaluating"))
    least = np.stack(np.unravel_index(found.numbers, table.sizes), axis=1)
    return Survey(least, table.header.warmth.ms(np.linspace(low, high, bins + 1)), found.counts)


@dataclass(frozen=True, eq=False)
class _Range:
    """Groups from ``start`` up to, not including, ``end``, and what to find in them."""

    table: FactorTable
    start: int
    end: int
    count: int
    low: float
    high: float
    bins: int

    def __str__(self) -> str:
        return f"groups {self.start} to {self.end - 1} of the space"


@dataclass(frozen=True, eq=False)
class _Found:
    """The least values of a range, ascending, with the numbers of their architectures; and counts by bin."""

    values: FloatArray
    numbers: IntArray
    counts: IntArray
    wanted: int


def _survey_range(part: _Range) -> _Found:
    """Survey the groups of one range."""
    counts = np.zeros(part.bins, dtype=np.int64)
    values, numbers = np.empty(0), np.empty(0, dtype=np.int64)
    width = (part.high - part.low) / part.bins or 1.0
    worst = math.inf
    for number, group in _groups(part.table, part.start, part.end):
        scaled = ((group - part.low) / width).astype(np.int32)
        counts += np.bincount(np.clip(scaled, 0, part.bins - 1, out=scaled), minlength=part.bins)
        if len(values) == part.count and not group.min() < worst:
            continue
        better = np.flatnonzero(group < worst) if len(values) == part.count else np.arange(group.size)
        values, numbers = _least(
            part.count, (values, numbers), (group[better], number * group.size + better)
        )
        worst = float(values[-1])
    return _Found(values, numbers, counts, part.count)


def _groups(table: FactorTable, start: int, end: int) -> Iterator[tuple[int, FloatArray]]:
    """Number and values of each group of a range; the next group overwrites the array."""
    first = _first_of_group(table.sizes)
    before, inside = table.sizes[:first], table.sizes[first:]
    outer = {p: array for p, array in table.factors.items() if p[-1] < first}
    crossing = {p: array for p, array in table.factors.items() if p[0] < first <= p[-1]}
    base = np.zeros(inside)
    for positions, array in table.factors.items():
        if positions[0] >= first:
            base += array.reshape(_spread_shape(positions, table.sizes, first))
    values = np.empty(inside)
    for number in range(start, end):
        chosen = np.unravel_index(number, before) if before else ()
        level = table.constant
        for positions, array in outer.items():
            level += float(array[tuple(chosen[p] for p in positions)])
        np.add(base, level, out=values)
        for positions, array in crossing.items():
            known = tuple(chosen[p] for p in positions if p < first)
            rest = tuple(p for p in positions if p >= first)
            values += array[known].reshape(_spread_shape(rest, table.sizes, first))
        yield number, values.reshape(-1)


def _first_of_group(sizes: tuple[int, ...]) -> int:
    """The first position that varies within a group."""
    first = len(sizes) - 1
    while first and math.prod(sizes[first - 1 :]) <= _GROUP:
        first -= 1
    return first


def _spread_shape(positions: tuple[int, ...], sizes: tuple[int, ...], first: int) -> tuple[int, ...]:
    """Shape that broadcasts an array over some of a group's positions to all of them."""
    return tuple(sizes[p] if p in positions else 1 for p in range(first, len(sizes)))


def _joined(one: _Found, next_one: _Found) -> _Found:
    """Join the findings of two ranges; the second follows the first."""
    least = _least(one.wanted, (one.values, one.numbers), (next_one.values, next_one.numbers))
    return _Found(*least, one.counts + next_one.counts, one.wanted)


def _least(
    count: int, one: tuple[FloatArray, IntArray], next_one: tuple[FloatArray, IntArray]
) -> tuple[FloatArray, IntArray]:
    """The least ``count`` values of two findings, ascending, and their numbers; of equals the first."""
    values, numbers = (np.concatenate(pair) for pair in zip(one, next_one, strict=True))
    order = np.argsort(values, kind="stable")[:count]
    return values[order], numbers[order]


def _lower_bound(table: FactorTable) -> float:
    """A lower bound of the values; the least value itself unless many choices interact."""
    return table.constant + float(least_to_come(stages(narrowed(table, _TRANSITIONS)[0]))[0][0])
