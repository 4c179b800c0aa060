"""The architecture that a one-shot search should end on: the likeliest by its odds that is within a latency.

The likeliest candidate of every choice need not be within a latency that the search keeps in the mean over
its odds. Among all architectures within the latency, one is likeliest, and a factor table finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..costs.table import FactorTable, IntArray
from ..errors import SearchError
from ..kernels.configuration import FloatArray
from .ranking import least

#: Number of architectures to rank at each price of latency.
_RANKED = 2000
#: The price of a limit's latency, in nats, doubles from 2**-4 to 2**40: there, the fastest one is first.
_LOWEST, _HIGHEST = -4, 40
#: A probability below this one counts as this one, so that every architecture has some.
_LEAST_ODDS = 1e-30


def likeliest(
    table: FactorTable, probabilities: Mapping[str, npt.ArrayLike], limit: float = np.inf
) -> IntArray:
    """The likeliest architecture whose value is at most ``limit``, as a row of candidate indices.

    All choices are independent. The answer is exact if it is among the likeliest few thousand architectures.
    If those are all over the limit, value is given a price in likelihood, as little as will do.

    Args:
        table: latency in ms, or another measure.
        probabilities: for each label the probabilities of its candidates, ``[candidates]``.
        limit: largest allowed value, in the table's unit.

    Raises:
        LookupTableError: ``probabilities`` does not fit the table.
        SearchError: all architectures exceed the limit.

    >>> table = FactorTable({"a": ("x", "y"), "b": ("x", "y")}, 0.0,
    ...                     {(0,): np.array([1.0, 2.0]), (1,): np.array([1.0, 2.0])})
    >>> odds = {"a": [0.1, 0.9], "b": [0.4, 0.6]}
    >>> likeliest(table, odds), likeliest(table, odds, limit=3.0)
    (array([1, 1]), array([1, 0]))
    """
    odds = {label: np.asarray(value, dtype=float) for label, value in probabilities.items()}
    table.check_probabilities(odds)
    nats = [-np.log(np.maximum(odds[label], _LEAST_ODDS)) for label in table.labels]
    if np.isinf(limit):
        return np.array([values.argmin() for values in nats])
    sums = table.sums
    for price in (0.0, *(2.0**k / limit for k in range(_LOWEST, _HIGHEST + 1))):
        rows = least(_priced(sums, nats, price), _RANKED)
        rows = rows[table.values(rows) <= limit]
        if len(rows):
            cost = sum(values[rows[:, position]] for position, values in enumerate(nats))
            found: IntArray = rows[np.argmin(cost)]
            return found
    raise SearchError(f"no architecture is within {limit:g}")


def _priced(table: FactorTable, nats: list[FloatArray], price: float) -> FactorTable:
    """Return a table of the unlikelihood of architectures plus ``price`` times their value in ``table``."""
    factors = {positions: price * array for positions, array in table.factors.items() if price}
    for position, values in enumerate(nats):
        factors[position,] = factors.get((position,), 0.0) + values
    return replace(table, constant=price * table.constant, factors=factors)
