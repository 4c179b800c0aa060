"""Find measures as sums over single choices and pairs of choices, by probing.

The base has one fixed candidate at every position. The value of the base, and of every architecture that
differs from it at one position, give all differences between candidates. Random architectures then show
whether the sum is right. If it is not, bisection finds a pair of positions that interact, and the
second-order differences of their candidates become a factor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..kernels.configuration import FloatArray
from .pricing import IndexArray, Indices, Pricing
from .table import FactorTable, Positions

#: A sum is exact up to this relative difference.
EXACT = 1e-6
#: How many times to draw more random architectures to find pairs.
_ROUNDS = 6
#: In relative differences, values below this share of the largest known value count as zero.
_FLOOR = 1e-6


@dataclass(frozen=True, eq=False)
class Probed:
    """A measure as a sum over single choices and pairs of choices.

    Attributes:
        table: factors of single positions, in order, then of pairs. Its constant is the value of the base,
            which has index 0 everywhere.
        worst_error: largest relative error among the architectures probed.
        worst_position: where the sum of the worst architecture goes wrong, on the way from the base to it
            one position at a time.
    """

    table: FactorTable
    worst_error: float
    worst_position: int


def is_exact(table: FactorTable, rows: IndexArray, values: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether the sums of architectures ``[N, positions]`` equal ``values [N]``; booleans ``[N]``."""
    floor = EXACT * _FLOOR * float(np.abs(values).max())
    return np.isclose(table.values(rows), values, rtol=EXACT, atol=floor)


def changes_of_one(sizes: Sequence[int]) -> dict[tuple[int, int], Indices]:
    """Architectures that differ from the base at one (position, candidate); the base is under (p, 0)."""
    base = (0,) * len(sizes)
    return {(p, c): (*base[:p], c, *base[p + 1 :]) for p, size in enumerate(sizes) for c in range(size)}


def probe(pricing: Pricing, probes: int = 48, seed: int = 0) -> list[Probed]:
    """The measures of ``pricing`` as sums over single choices and pairs, as far as these explain them.

    Args:
        pricing: provides the values.
        probes: number of random architectures to test the sums on.
        seed: seed of the random architectures.
    """
    sizes = tuple(len(known) for known in pricing.space.candidates.values())
    rng = np.random.default_rng(seed)
    searches = _additive(pricing, sizes)
    probed = rng.integers(sizes, size=(probes, len(sizes)))
    for _ in range(_ROUNDS):
        if max(search.errors(probed).max() for search in searches) <= EXACT:
            break
        known = searches
        searches = [search.with_pairs(probed) for search in known]
        probed = np.concatenate([probed, rng.integers(sizes, size=(probes, len(sizes)))])
        if all(search is before for search, before in zip(searches, known, strict=True)):
            break
    return [search.result(probed) for search in searches]


def _additive(pricing: Pricing, sizes: tuple[int, ...]) -> list[_Search]:
    """Sums without pairs."""
    changes = changes_of_one(sizes)
    values = pricing.values(np.array(list(changes.values())))
    found = []
    for measure, column in enumerate(values.T):
        base = float(column[0])
        added = dict(zip(changes, column - base, strict=True))
        factors: dict[Positions, FloatArray] = {
            (p,): np.array([added[p, c] for c in range(size)]) for p, size in enumerate(sizes)
        }
        floor = max(_FLOOR * float(np.abs(column).max()), np.finfo(float).tiny)
        found.append(_Search(FactorTable(pricing.space.candidates, base, factors), pricing, measure, floor))
    return found


@dataclass(frozen=True, eq=False)
class _Search:
    """The sum of one measure, as far as it is known so far.

    Attributes:
        table: the sum.
        pricing: provides the values.
        measure: index of the measure in ``pricing``.
        floor: values below it count as zero in relative differences.
    """

    table: FactorTable
    pricing: Pricing
    measure: int
    floor: float

    def values(self, rows: IndexArray) -> FloatArray:
        """True values, ``[N, positions] -> [N]``."""
        return np.asarray(self.pricing.values(rows)[:, self.measure])

    def errors(self, rows: IndexArray) -> FloatArray:
        """Relative differences of the sums from the true values, ``[N, positions] -> [N]``."""
        values = self.values(rows)
        return np.asarray(np.abs(self.table.values(rows) - values) / np.maximum(np.abs(values), self.floor))

    def result(self, probed: IndexArray) -> Probed:
        """The current sum, and its errors on ``probed``."""
        errors = self.errors(probed)
        steps = np.tril(np.broadcast_to(probed[errors.argmax()], (probed.shape[1],) * 2))
        steps = np.concatenate([np.zeros_like(steps[:1]), steps])
        astray = np.diff(self.table.values(steps) - self.values(steps))
        return Probed(self.table, float(errors.max()), int(np.abs(astray).argmax()))

    def with_pairs(self, probed: IndexArray) -> _Search:
        """This sum with the pairs that make the probes right, as far as pairs can."""
        search = self
        for row in probed:
            while pair := search._interacting_pair(row):
                matrix = search._second_order(pair)
                scale = max(abs(float(search.table.values(row[None])[0])), search.floor)
                if pair in search.table.factors or np.abs(matrix).max() <= EXACT * scale:
                    break  # the pair interacts with a third position
                table = replace(search.table, factors={**search.table.factors, pair: matrix})
                search = replace(search, table=table)
        return search

    def _interacting_pair(self, row: IndexArray) -> tuple[int, int] | None:
        """Two positions whose choices in ``row`` interact and are missing from the sum; None if it is right.

        Sums are right for the base, and for any single change of it. So the sum becomes wrong at some choice
        in ``row`` when all choices before it have been made; an earlier choice causes this together with it.
        """

        def is_off(positions: Sequence[int]) -> bool:
            part = np.zeros((1, len(row)), dtype=np.intp)
            part[0, positions] = row[positions]
            return bool(self.errors(part)[0] > EXACT)

        changed = [int(position) for position in np.flatnonzero(row)]
        if not is_off(changed):
            return None
        end = _first(lambda n: is_off(changed[:n]), len(changed))
        start = _first(lambda n: is_off([*changed[:n], changed[end - 1]]), end - 1)
        return changed[start - 1], changed[end - 1]

    def _second_order(self, pair: tuple[int, int]) -> FloatArray:
        """Interaction of the candidates of two positions, in the base: the difference from the sum."""
        first, second = (self.table.sizes[p] for p in pair)
        rows = np.zeros((first, second, len(self.table.sizes)), dtype=np.intp)
        rows[:, :, pair[0]] = np.arange(first)[:, None]
        rows[:, :, pair[1]] = np.arange(second)
        values = self.values(rows.reshape(first * second, -1)).reshape(first, second)
        return np.asarray(values - values[:, :1] - values[:1, :] + values[0, 0])


def _first(test: Callable[[int], bool], known: int) -> int:
    """By bisection, a number that passes ``test`` after one that fails; 0 fails and ``known`` passes."""
    low, high = 0, known
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if test(middle) else (middle, high)
    return high
