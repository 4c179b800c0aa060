"""Attribute the latency of one architecture to its choices, by what each of them changes."""

from __future__ import annotations

import math

import numpy as np

from ..kernels.configuration import FloatArray
from ..supernet.space import STATIONARY
from .pricing import Indices, Pricing
from .table import FactorTable


def parts_of_table(table: FactorTable, row: Indices) -> dict[str, float]:
    """Split the sum of an architecture by label; what no choice changes is under ``stationary_block``.

    >>> table = FactorTable({"width": ("8", "16"), "kernel": ("k1", "k3")}, 1.0,
    ...                     {(0,): np.array([2.0, 4.0]), (0, 1): np.array([[1.0, 9], [2, 18]])})
    >>> parts_of_table(table, (1, 0))
    {'width': 5.5, 'kernel': 0.5, 'stationary_block': 1.0}
    """
    found = dict.fromkeys(table.labels, 0.0)
    for positions, array in table.factors.items():
        for position, share in zip(positions, shares(array, [row[p] for p in positions]), strict=True):
            found[table.labels[position]] += share
    return {**found, STATIONARY: table.constant}


def shares(array: FloatArray, index: list[int]) -> list[float]:
    """Split an entry of a factor among its axes.

    Each axis gets what its index adds to the calmest entry of the factor, with the other indices as there,
    and an equal part of the rest. The calmest entry has the index of each axis that lies nearest to zero on
    average: the cheapest candidate, or one with which the kernels do not run.

    >>> shares(np.array([[1.0, 4.0], [3.0, 6.0]]), [1, 1])  # a sum
    [2.5, 3.5]
    >>> shares(np.array([[0.0, 0.0], [0.0, -1.0]]), [1, 1])  # only together
    [-0.5, -0.5]
    """
    sizes = np.abs(array)
    axes = range(array.ndim)
    calm = [int(sizes.mean(axis=tuple(a for a in axes if a != axis)).argmin()) for axis in axes]
    least = float(array[tuple(calm)])
    own = [float(array[tuple(index[a] if a == axis else calm[a] for a in axes)]) - least for axis in axes]
    rest = float(array[tuple(index)]) - math.fsum(own)
    return [added + rest / array.ndim for added in own]


def parts_of_kernels(pricing: Pricing, row: Indices) -> dict[str, float]:
    """Split the sum of an architecture's kernels by label, by what each change of one choice does to them.

    ``pricing`` is of one measure.
    """
    candidates = pricing.space.candidates
    changes = [
        (label, (*row[:position], other, *row[position + 1 :]))
        for position, (label, known) in enumerate(candidates.items())
        for other in range(len(known))
        if other != row[position]
    ]
    [[kernels], *changed] = pricing.parts([row, *(other for _, other in changes)])
    found = {**dict.fromkeys(candidates, 0.0), STATIONARY: 0.0}
    for name, ms in kernels.items():
        changing = {
            label for (label, _), [other] in zip(changes, changed, strict=True) if other.get(name) != ms
        } or {STATIONARY}
        for label in changing:
            found[label] += ms / len(changing)
    return found
