"""Survey: every architecture of a space, one by one, for the least values and the distribution of all.

:mod:`.ranking` finds the least without listing the space, but only where few choices interact. A survey works
for any table, and its quantiles are exact but for the width of a bin.

Architectures are numbered in order of index. A group of them differs in the last positions alone: factors of
these positions are summed once for all groups, factors of the positions before them add one number to a
group. Any range of groups is a separate piece of work.
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

#: Architectures of a group at most, unless one position has more candidates: their values stay in the cache.
_GROUP = 2**15
#: Architectures of a chunk of work, about; a second or less.
_CHUNK = 2**26
#: States that bounds of a measure may take to find.
_TRANSITIONS = 100_000


@dataclass(frozen=True, eq=False)
class Survey:
    """The least architectures of a space, and how the values of all are distributed.

    Attributes:
        least: those of least value, the least first, and of equals the first by index, ``[n, positions]``.
        edges: of bins of values, the outer ones included, ``[bins + 1]``.
        counts: architectures in each bin, which has its lower edge, ``[bins]``.
    """

    least: IntArray
    edges: FloatArray
    counts: IntArray

    @property
    def architectures(self) -> int:
        """How many there are."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """The value that ``share`` of all, from 0 to 1, are at most; off by the width of a bin at most."""
        reached = np.cumsum(self.counts) >= share * self.architectures
        return float(self.edges[int(np.argmax(reached)) + 1])


def survey(table: FactorTable, count: int = 20, bins: int = 10_000) -> Survey:
    """Evaluate every architecture, spread over the workers in use, see :mod:`nnmeter_nas.parallel.bulk`.

    Args:
        table: the measure, such as a lookup table's.
        count: how many of least value to name.
        bins: of the distribution, equally wide.

    Raises:
        LookupTableError: ``count`` or ``bins`` is less than 1, or there are 2^63 architectures or more.
        WorkerError: workers died again and again.
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
    return Survey(least, np.linspace(low, high, bins + 1), found.counts)


@dataclass(frozen=True, eq=False)
class _Range:
    """Groups from ``start`` until before ``end``, and what to find out about them."""

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
    """The least values of a range, ascending, the numbers of their architectures, and counts by bin."""

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
    """Number and values of each group of a range; the array is overwritten by the next."""
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
    """The position that groups begin with."""
    first = len(sizes) - 1
    while first and math.prod(sizes[first - 1 :]) <= _GROUP:
        first -= 1
    return first


def _spread_shape(positions: tuple[int, ...], sizes: tuple[int, ...], first: int) -> tuple[int, ...]:
    """Shape in which an array of some of a group's positions meets all of them."""
    return tuple(sizes[p] if p in positions else 1 for p in range(first, len(sizes)))


def _joined(one: _Found, next_one: _Found) -> _Found:
    """What is found of two ranges, the second behind the first."""
    least = _least(one.wanted, (one.values, one.numbers), (next_one.values, next_one.numbers))
    return _Found(*least, one.counts + next_one.counts, one.wanted)


def _least(
    count: int, one: tuple[FloatArray, IntArray], next_one: tuple[FloatArray, IntArray]
) -> tuple[FloatArray, IntArray]:
    """The least ``count`` values of two, ascending, and their numbers; of equals those of the first."""
    values, numbers = (np.concatenate(pair) for pair in zip(one, next_one, strict=True))
    order = np.argsort(values, kind="stable")[:count]
    return values[order], numbers[order]


def _lower_bound(table: FactorTable) -> float:
    """A value that none is below; the least one, unless many choices interact."""
    return table.constant + float(least_to_come(stages(narrowed(table, _TRANSITIONS)[0]))[0][0])
