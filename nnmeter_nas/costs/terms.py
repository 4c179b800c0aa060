"""A measure of an architecture as a sum of terms, each of which depends on few choices.

Latency from a lookup table is such a sum: of a constant, of one term for each block, and of one for each pair
of choices that interact. What takes more than pairs is a term of more positions, up to one of all of them,
which lists the space. Whatever ranks, samples or limits architectures works on this form alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import LookupTableError
from ..kernels.configuration import FloatArray

IntArray = npt.NDArray[np.int64]
#: Positions that a term depends on, ascending.
Positions = tuple[int, ...]
#: Architectures of a space up to which it is listed where that serves.
LISTED = 2**17
#: Architectures that are summed at once: more would no longer fit in the processor's caches.
_ROWS_AT_ONCE = 2**14


@dataclass(frozen=True, eq=False)
class Terms:
    """A sum of terms over the positions of an index array.

    Attributes:
        sizes: number of candidates of each position.
        constant: what no choice changes.
        factors: by the positions that a term depends on, its value for every combination of their candidates,
            an array of their sizes.

    Raises:
        LookupTableError: a factor does not fit ``sizes``, or holds what is no finite number.

    >>> terms = Terms((2, 3), 1.0, {(0,): np.array([0.0, 5.0]), (0, 1): np.array([[0.0, 1, 2], [0, 0, -1]])})
    >>> terms.values([[0, 0], [0, 2], [1, 2]])
    array([1., 3., 5.])
    """

    sizes: tuple[int, ...]
    constant: float
    factors: Mapping[Positions, FloatArray]

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise LookupTableError(f"sizes={self.sizes} must be of one position or more, each at least 1")
        for positions, array in self.factors.items():
            ascending = all(p < q for p, q in pairwise(positions))
            if not positions or not ascending or not 0 <= positions[0] <= positions[-1] < len(self.sizes):
                raise LookupTableError(
                    f"factors are of ascending positions from 0 to {len(self.sizes) - 1}; got {positions}"
                )
            if array.shape != tuple(self.sizes[p] for p in positions):
                raise LookupTableError(f"the factor of {positions} does not fit sizes: {array.shape}")
        if not all(np.isfinite(array).all() for array in (np.array(self.constant), *self.factors.values())):
            raise LookupTableError("the terms hold what is no finite number")

    def values(self, indices: npt.ArrayLike, names: Sequence[str] | None = None) -> FloatArray:
        """The sums of architectures ``[N, positions] -> [N]``.

        Args:
            indices: of the candidates, integers.
            names: what errors call the positions; their numbers if None.

        Raises:
            LookupTableError: ``indices`` is of another shape, or holds an index that is no candidate's.
        """
        columns = self._checked_columns(indices, range(len(self.sizes)) if names is None else names)
        total = np.full(len(columns[0]), self.constant)
        for start in range(0, len(total), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            for positions, array in self.factors.items():
                total[rows] += array[tuple(columns[p][rows] for p in positions)]
        return total

    def __neg__(self) -> Terms:
        """Terms whose least is the most of these."""
        return Terms(self.sizes, -self.constant, {p: -array for p, array in self.factors.items()})

    def _checked_columns(
        self, indices: npt.ArrayLike, names: Sequence[object]
    ) -> list[npt.NDArray[np.integer[Any]]]:
        """The indices of each position, ``[N]`` each."""
        rows = np.asarray(indices)
        if rows.ndim != 2 or rows.shape[1] != len(self.sizes):
            raise LookupTableError(
                f"indices must be of shape [N, {len(self.sizes)}], a column for each choice; got {rows.shape}"
            )
        if not np.issubdtype(rows.dtype, np.integer):
            raise LookupTableError(f"indices must be integers; got {rows.dtype}")
        columns = list(np.ascontiguousarray(rows.T))
        for name, size, column in zip(names, self.sizes, columns, strict=True):
            if len(column) and not 0 <= column.min() <= column.max() < size:
                bad = column[(column < 0) | (column >= size)][0]
                raise LookupTableError(f"the choice {name!r} has {size} candidates, and no index {bad}")
        return columns


def every_architecture(sizes: Sequence[int]) -> IntArray:
    """All architectures of a space in order of index, ``[architectures, positions]``.

    >>> every_architecture((2, 2)).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    return np.stack(np.unravel_index(np.arange(math.prod(sizes)), tuple(sizes)), axis=1)
