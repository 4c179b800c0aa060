"""Sample uniformly the architectures whose measure is inside limits, even if they are very rare.

If one architecture in a million is inside, random draws with rejection need a million draws for each.
Instead, one position after another is decided, and each candidate is picked in proportion to the number of
completions with it, which :mod:`~nnmeter_nas.solve.completions` counts. Counts are rounded, so they include a
few architectures outside the limits. These are rejected by their true value, so the rest is exactly uniform.
The bins split the range between the least value and the limit, so a tight limit takes no longer than a loose
one.

The counting is the recursive method of Nijenhuis and Wilf (Combinatorial Algorithms, 1978); rounding with
rejection is from Dyer (Approximate counting by dynamic programming, STOC 2003).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..costs.table import LISTED, FactorTable, IntArray, every_architecture
from ..errors import SearchError
from .completions import Completions
from .stages import Stage, least_to_come, narrowed, stages

#: Number of parts of the budget at first, and the factor by which it grows while too much is rejected.
_BINS, _FINER = 1024, 4
#: Largest size of all counts together, and largest number of pairs of a state and a candidate.
_CELLS, _TRANSITIONS = 2**24, 2**18
#: Share of draws inside the limits that is enough, and number of draws to estimate it.
_SHARE, _PILOT = 0.5, 512
#: After this many draws in a row outside the limits, there counts as being nothing inside; draws at once.
_PATIENCE, _BATCH = 2**20, 2**16
#: Number of draws to estimate the number of architectures inside.
_ESTIMATE = 8192
#: Rounding error of sums, relative to their terms.
_ROUNDING = 1e-12


class UniformSampler:
    """Draws architectures with ``at_least <= value <= at_most``, all with equal probability.

    A value at a limit is inside. Small spaces are listed. In others the probabilities are exactly equal up to
    4e18 architectures; beyond, counts are floating-point numbers, and probabilities are equal within 1e-13.

    Rows of indices are equally probable: candidates that make no difference, such as those of a layer that
    is cut off, each count. If too many choices interact to count exactly, factors are replaced by their
    minima over some positions (``stages.narrowed``): more is rejected, and the rest is still uniform.

    Args:
        table: the measure.
        at_most: upper limit of the value.
        at_least: lower limit of the value.

    Attributes:
        table, at_most, at_least: as given.
        share: approximate share of draws that is inside and not rejected.

    Raises:
        SearchError: no architecture is inside the limits, or none was found between two limits that are too
            close for counts to resolve. The message gives the least and the most value there is.

    >>> factors = {(0,): np.array([0.0, 5.0]), (1,): np.array([0.0, 1.0, 2.0])}
    >>> table = FactorTable.of_sizes((2, 3), 1.0, factors)
    >>> sampler = UniformSampler(table, at_most=2.0)
    >>> sampler.size
    2
    >>> sampler.draw(4, np.random.default_rng(0)).tolist()
    [[0, 1], [0, 1], [0, 1], [0, 0]]
    """

    def __init__(self, table: FactorTable, at_most: float = math.inf, at_least: float = -math.inf) -> None:
        if not at_least <= at_most:
            raise SearchError(f"at_least={at_least:g} and at_most={at_most:g} leave no value between them")
        self.table, self.at_most, self.at_least = table, at_most, at_least
        # What is counted are sums.
        warmth, self._sums = table.header.warmth, table.sums
        self._most, self._least = (float(warmth.sums(limit)) for limit in (at_most, at_least))
        self.share = 1.0
        self._listed: IntArray | None = None
        self._counted: Completions | None = None
        self._size: tuple[float, float] | None = None
        if math.prod(table.sizes) <= LISTED:
            every = every_architecture(table.sizes)
            values = table.values(every)
            self._reach = float(values.min()), float(values.max())
            self._list(every)
        else:
            self._count(_Ascent.of(self._sums), _Ascent.of(-self._sums))

    @property
    def size(self) -> float:
        """Number of architectures inside: exact if an ``int``, otherwise within :attr:`size_error`."""
        return self._estimated()[0]

    @property
    def size_error(self) -> float:
        """Relative error of :attr:`size`: two standard errors of the estimate; 0 if exact."""
        return self._estimated()[1]

    def draw(self, count: int, rng: np.random.Generator) -> IntArray:
        """Draw ``count`` architectures ``[count, positions]`` independently, so some may recur.

        Raises:
            SearchError: none was found, as for the class.
        """
        if self._listed is not None:
            return self._listed[rng.integers(len(self._listed), size=count)]
        assert self._counted is not None
        batches = [np.empty((0, len(self.table.sizes)), dtype=np.int64)]
        missing, in_vain = count, 0
        while missing > 0:
            drawn = self._counted.draw(min(math.ceil(1.1 * missing / self.share) + 4, _BATCH), rng)
            batches.append(drawn[self._inside(drawn)][:missing])
            missing -= len(batches[-1])
            in_vain = 0 if len(batches[-1]) else in_vain + len(drawn)
            if in_vain >= _PATIENCE:
                raise SearchError(f"{self._none()}, as far as drawing {in_vain} near the limits tells")
        return np.concatenate(batches)

    def _inside(self, rows: IntArray) -> npt.NDArray[np.bool_]:
        values = self.table.values(rows)
        return (self.at_least <= values) & (values <= self.at_most)

    def _list(self, rows: IntArray) -> None:
        """Draw from the ``rows`` that are inside; they are all there is."""
        self._listed = rows[self._inside(rows)]
        self._size = len(self._listed), 0.0
        if not len(self._listed):
            raise SearchError(self._none())

    def _count(self, up: _Ascent, down: _Ascent) -> None:
        """Count the architectures inside: ``up`` from the least value, or ``down`` from the most if nearer.

        Bins get finer until few others are counted. If only few are counted at all, they are listed.
        """
        least, most = up.least, -down.least
        low, high = self.table.header.warmth.ms(np.array([least, most])).tolist()
        self._reach = low, high
        if self._least < least - up.rounding and most + up.rounding < self._most:
            self._size = math.prod(self.table.sizes), 0.0
        room_up, room_down = min(self._most, most) - least, most - max(self._least, least)
        if room_up <= room_down:
            ascent, room, floor = up, room_up, self._least - least
        else:
            ascent, room, floor = down, room_down, most - self._most
        if room < -ascent.rounding:
            raise SearchError(self._none())
        budget, floor = max(room, 0.0) + ascent.rounding, floor - ascent.loss - ascent.rounding
        whole = math.prod(self.table.sizes) < 2**62
        bins, finest = _BINS, _CELLS // sum(len(stage.costs) for stage in ascent.found)
        while True:
            self._counted = Completions(ascent.found, budget, floor, min(bins, finest), whole)
            if self._counted.total <= LISTED:
                return self._list(self._counted.every())
            self.share = float(np.mean(self._inside(self._counted.draw(_PILOT, np.random.default_rng(0)))))
            if self.share >= _SHARE or bins >= finest:
                break
            bins *= _FINER
        if not self.share:
            self.share = 1 / _PILOT
            self.draw(1, np.random.default_rng(0))  # raises if there is none

    def _estimated(self) -> tuple[float, float]:
        """Number of architectures inside, and its relative error."""
        if self._size is None:
            assert self._counted is not None
            inside = self._inside(self._counted.draw(_ESTIMATE, np.random.default_rng(1)))
            share = (np.count_nonzero(inside) + 1) / (_ESTIMATE + 2)  # no sample proves 0 or 1
            self._size = self._counted.total * share, 2 * math.sqrt((1 - share) / share / _ESTIMATE)
        return self._size

    def _none(self) -> str:
        """Message for the case that nothing is inside."""
        limits = [f"at least {self.at_least:g}"] if self.at_least > -math.inf else []
        limits += [f"at most {self.at_most:g}"] if self.at_most < math.inf else []
        least, most = self._reach
        return (
            f"no architecture has a value of {' and '.join(limits)}; values go from {least:.6g} to {most:.6g}"
        )


@dataclass(frozen=True, eq=False)
class _Ascent:
    """A table from its least value up.

    Attributes:
        found: stages of a table whose values are never above this table's.
        loss: the most that these values are below this table's.
        least: lower bound of the values.
        rounding: possible rounding error of sums.
    """

    found: list[Stage]
    loss: float
    least: float
    rounding: float

    @classmethod
    def of(cls, table: FactorTable) -> _Ascent:
        lower, loss = narrowed(table, _TRANSITIONS)
        found = stages(lower)
        scale = abs(table.constant) + sum(float(np.abs(array).max()) for array in table.factors.values())
        return cls(found, loss, table.constant + float(least_to_come(found)[0][0]), _ROUNDING * scale or 1.0)
