"""FactorTable: a number for every architecture of a space, as a sum of factors over few choices each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import LookupTableError, nearest
from ..graph.shapes import Shape
from ..kernels.configuration import FloatArray
from ..packs.warmth import COLD, Warmth
from ..supernet.choices import Candidates, plain_architecture

IntArray = npt.NDArray[np.int64]
#: Positions that a factor depends on, ascending.
Positions = tuple[int, ...]
#: Name of the measure in the header of a latency table (ms).
LATENCY = "latency"
#: Spaces of up to this many architectures are listed where that helps.
LISTED = 2**17
#: Number of architectures to sum at once: more would not fit in the processor's caches.
_ROWS_AT_ONCE = 2**14
#: How far the sum of probabilities may be from one; a softmax in low precision is that far off.
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Header:
    """The subject of a table.

    Attributes:
        measure: "latency" (ms, batch 1), "flops", "params", "size" or "memory" (bytes), or another number.
        space, space_fingerprint: name of the space, and hash of its content.
        input_shape: shape of the input, NCHW.
        device: applied hardware; empty if the numbers are the same on all devices.
        pack_version, pack_fingerprint: version of the device's predictor pack, and hash of its content.
        left_out: operators that the numbers leave out: name -> canonical operator.
        worst_error: largest relative error against the full graphs, among the architectures tested.
        warmth: what turns the sums of the factors into values.
    """

    measure: str = LATENCY
    space: str = ""
    space_fingerprint: str = ""
    input_shape: Shape = ()
    device: str = ""
    pack_version: float = 0.0
    pack_fingerprint: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict)
    worst_error: float = 0.0
    warmth: Warmth = COLD


@dataclass(frozen=True, eq=False)
class FactorTable:
    """A sum of factors, each a number for every combination of the candidates of a few choices.

    On devices where small networks run quicker than their kernels, the value of an architecture is less than
    its sum: see :class:`.Warmth` and :attr:`sums`.

    The position of a choice is its index in ``candidates``. An architecture is a mapping of labels to
    candidates, or a row of candidate indices, one for each position.

    Args:
        candidates: candidates by label.
        constant: the part that no choice changes.
        factors: positions -> array with one axis per position, as long as the position has candidates.
        header: the subject of the table.

    Raises:
        LookupTableError: a factor does not fit the candidates, or a value is not finite.

    >>> table = FactorTable({"width": ("8", "16"), "kernel": ("k3", "k5", "k7")}, 1.0,
    ...                     {(0,): np.array([0.0, 5.0]), (0, 1): np.array([[0.0, 1, 2], [0, 0, -1]])})
    >>> table.values([[0, 0], [0, 2], [1, 2]])
    array([1., 3., 5.])
    >>> table.value({"width": "16", "kernel": "k7"})
    5.0
    """

    candidates: Candidates
    constant: float
    factors: Mapping[Positions, FloatArray]
    header: Header = Header()

    def __post_init__(self) -> None:
        object.__setattr__(self, "candidates", {label: tuple(c) for label, c in self.candidates.items()})
        object.__setattr__(self, "factors", {p: _constant(array) for p, array in self.factors.items()})
        if not self.sizes or min(self.sizes) < 1:
            raise LookupTableError("a table needs one choice or more, and each choice one candidate or more")
        for positions, array in self.factors.items():
            ascending = all(p < q for p, q in pairwise(positions))
            if not positions or not ascending or not 0 <= positions[0] <= positions[-1] < len(self.sizes):
                raise LookupTableError(
                    f"factors are of ascending positions from 0 to {len(self.sizes) - 1}; got {positions}"
                )
            if array.shape != tuple(self.sizes[p] for p in positions):
                raise LookupTableError(
                    f"the factor of {self._named(positions)} does not fit the candidates: {array.shape}"
                )
        if not all(np.isfinite(array).all() for array in (np.array(self.constant), *self.factors.values())):
            raise LookupTableError("the table holds what is no finite number")

    @classmethod
    def of_sizes(
        cls, sizes: Sequence[int], constant: float, factors: Mapping[Positions, FloatArray]
    ) -> FactorTable:
        """Make a table whose choices and candidates are named by their numbers.

        >>> FactorTable.of_sizes((1, 2), 0.0, {}).candidates
        {'0': ('0',), '1': ('0', '1')}
        """
        return cls({str(p): tuple(map(str, range(n))) for p, n in enumerate(sizes)}, constant, factors)

    @property
    def device(self) -> str:
        """Applied hardware; empty if the numbers are the same on all devices."""
        return self.header.device

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the choices, by position."""
        return tuple(self.candidates)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of candidates, by position."""
        return tuple(map(len, self.candidates.values()))

    def block(self, label: str) -> FloatArray:
        """The factor of one choice alone, ``[candidates]``; zeros if it has none.

        Raises:
            LookupTableError: there is no such choice.
        """
        if label not in self.candidates:
            raise LookupTableError(f"the table has no choice {label!r}; {nearest(str(label), self.labels)}")
        position = self.labels.index(label)
        return self.factors.get((position,), np.zeros(self.sizes[position]))

    def interactions(self) -> dict[tuple[str, ...], FloatArray]:
        """Factors of several choices, by their labels: what the choices add beyond their own factors."""
        return {self._named(p): array for p, array in self.factors.items() if len(p) > 1}

    # One architecture, or many

    def value(self, architecture: Mapping[str, Any]) -> float:
        """The value of one architecture, in a few microseconds.

        Raises:
            SpaceError: the architecture is not in this space.
        """
        index, factors = self._plain
        try:
            row = [of[architecture[label]] for label, of in index.items()]
            known = len(architecture) == len(row)
        except (KeyError, TypeError):
            known = False
        if not known:  # candidates in NNI's spelling, or an error that names the fault
            plain = plain_architecture(architecture, self.candidates)
            row = [of[plain[label]] for label, of in index.items()]
        total = self.constant
        for positions, values in factors:
            for position in positions:
                values = values[row[position]]
            total += values
        return float(self.header.warmth.ms(total))

    @cached_property
    def _plain(self) -> tuple[dict[str, dict[str, int]], list[tuple[Positions, Any]]]:
        """Candidate indices by label, and factors as lists: faster than NumPy for one architecture."""
        index = {label: {name: i for i, name in enumerate(c)} for label, c in self.candidates.items()}
        return index, [(positions, array.tolist()) for positions, array in self.factors.items()]

    def values(self, indices: npt.ArrayLike) -> FloatArray:
        """The values of architectures, given as candidate indices ``[N, positions] -> [N]``.

        Raises:
            LookupTableError: ``indices`` has another shape, or holds an index without a candidate.
        """
        columns = self._checked_columns(indices)
        total = np.full(len(columns[0]), self.constant, dtype=float)
        for start in range(0, len(total), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            for positions, array in self.factors.items():
                total[rows] += array[tuple(columns[p][rows] for p in positions)]
        found: FloatArray = self.header.warmth.ms(total)
        return found

    def latency(self, architecture: Mapping[str, Any]) -> float:
        """Latency in ms of an architecture that maps labels to candidates.

        Raises:
            SpaceError: the architecture is not in this space.
            LookupTableError: the table is of another measure.
        """
        self._check_latency()
        return self.value(architecture)

    def latencies(self, indices: npt.ArrayLike) -> FloatArray:
        """Latency in ms of architectures, given as candidate indices ``[N, positions] -> [N]``.

        Raises:
            LookupTableError: as :meth:`values`, or the table is of another measure.
        """
        self._check_latency()
        return self.values(indices)

    def indices(self, architectures: Iterable[Mapping[str, Any]]) -> npt.NDArray[np.intp]:
        """Candidate indices ``[N, positions]`` of architectures that map labels to candidates.

        Raises:
            SpaceError: an architecture is not in this space.
        """
        rows = [
            [known.index(plain[label]) for label, known in self.candidates.items()]
            for plain in (plain_architecture(a, self.candidates) for a in architectures)
        ]
        return np.array(rows, dtype=np.intp).reshape(len(rows), len(self.labels))

    def __neg__(self) -> FactorTable:
        """The table with all sums negated, so that its least is the most of this one."""
        factors = {positions: -array for positions, array in self.factors.items()}
        return replace(self.sums, constant=-self.constant, factors=factors)

    @property
    def sums(self) -> FactorTable:
        """The table whose values are the sums of the factors; it ranks architectures as this one does."""
        if not self.header.warmth.exponent:
            return self
        return replace(self, header=replace(self.header, warmth=COLD))

    @property
    def warm_share(self) -> float:
        """Least share of its sum that an architecture takes, see :class:`.Warmth`; 1 if all take the sum."""
        least = self.constant + math.fsum(float(array.min()) for array in self.factors.values())
        return float(self.header.warmth.share(least))

    # Expectations

    def expected(self, probabilities: Mapping[str, npt.ArrayLike]) -> float:
        """The mean over all architectures if all choices are independent.

        On a device where small networks run quicker, it is the value of the mean sum.

        Args:
            probabilities: for each label the probabilities of its candidates, ``[candidates]``.

        Raises:
            LookupTableError: a label is missing or unknown, or its probabilities have another length, are
                negative or NaN, or do not sum to one.
        """
        p = {label: _numbers(label, value) for label, value in probabilities.items()}
        self.check_probabilities(p)
        mean = float(contracted(self.constant, self.factors, [p[label] for label in self.labels]))
        return float(self.header.warmth.ms(mean))

    def check_probabilities(self, probabilities: Mapping[str, FloatArray]) -> None:
        """Raise a LookupTableError unless every label has a distribution over its candidates."""
        for label in probabilities:
            if label not in self.candidates:
                raise LookupTableError(
                    f"the table has no choice {label!r}; {nearest(str(label), self.labels)}"
                )
        for label, known in self.candidates.items():
            if label not in probabilities:
                raise LookupTableError(f"probabilities lack the choice {label!r}")
            p = probabilities[label]
            if p.shape != (len(known),):
                raise LookupTableError(
                    f"probabilities of {label!r} must be of shape [{len(known)}], one for each of "
                    f"{', '.join(known)}; got {list(p.shape)}"
                )
            if not np.isfinite(p).all() or (p < 0).any():
                raise LookupTableError(
                    f"probabilities of {label!r} must be numbers from 0 to 1; got {p.tolist()}"
                )
            if abs(p.sum() - 1) > _SUM_TOLERANCE:
                raise LookupTableError(f"probabilities of {label!r} must sum to 1; they sum to {p.sum():g}")

    # Checks

    def _checked_columns(self, indices: npt.ArrayLike) -> list[npt.NDArray[np.integer[Any]]]:
        """Checked indices of each position, ``[N]`` each."""
        rows = np.asarray(indices)
        if rows.ndim != 2 or rows.shape[1] != len(self.sizes):
            raise LookupTableError(
                f"indices must be of shape [N, {len(self.sizes)}], a column for each choice; got {rows.shape}"
            )
        if not np.issubdtype(rows.dtype, np.integer):
            raise LookupTableError(f"indices must be integers; got {rows.dtype}")
        columns = list(np.ascontiguousarray(rows.T))
        for label, size, column in zip(self.labels, self.sizes, columns, strict=True):
            if len(column) and not 0 <= column.min() <= column.max() < size:
                bad = column[(column < 0) | (column >= size)][0]
                raise LookupTableError(f"the choice {label!r} has {size} candidates, and no index {bad}")
        return columns

    def _check_latency(self) -> None:
        if self.header.measure != LATENCY:
            raise LookupTableError(f"the table is of {self.header.measure}, not of latency; ask for values")

    def _named(self, positions: Positions) -> tuple[str, ...]:
        return tuple(self.labels[p] for p in positions)


def contracted(constant: Any, factors: Mapping[Positions, Any], probabilities: Sequence[Any]) -> Any:
    """The sum of ``factors``, weighted by ``probabilities`` by position; for NumPy arrays or tensors."""
    total = constant
    for positions, array in factors.items():
        for position in reversed(positions):
            array = array @ probabilities[position]
        total = total + array
    return total


def every_architecture(sizes: Sequence[int]) -> IntArray:
    """All architectures of a space in index order, ``[architectures, positions]``.

    >>> every_architecture((2, 2)).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    return np.stack(np.unravel_index(np.arange(math.prod(sizes)), tuple(sizes)), axis=1)


def _constant(array: npt.ArrayLike) -> FloatArray:
    """A read-only copy of an array, or the array itself if it is read-only already."""
    if isinstance(array, np.ndarray) and array.dtype == float and not array.flags.writeable:
        return array
    copy = np.array(array, dtype=float)
    copy.flags.writeable = False
    return copy


def _numbers(label: str, value: npt.ArrayLike) -> FloatArray:
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise LookupTableError(f"probabilities of {label!r} must be numbers from 0 to 1: {error}") from error
