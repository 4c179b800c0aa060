"""The likeliest architecture within a limit is found, also where the likeliest of all are far over it."""

from __future__ import annotations

import numpy as np
import pytest

from nnmeter_nas.costs.table import FactorTable, every_architecture
from nnmeter_nas.errors import LookupTableError, SearchError
from nnmeter_nas.solve.likeliest import likeliest
from nnmeter_nas.solve.ranking import latency_reach


def table_of(sizes: tuple[int, ...], seed: int) -> FactorTable:
    """A table in which neighbours interact."""
    rng = np.random.default_rng(seed)
    factors = {(p,): rng.uniform(0, 1, n) for p, n in enumerate(sizes)}
    factors |= {(p, p + 1): rng.uniform(0, 0.2, (sizes[p], sizes[p + 1])) for p in range(len(sizes) - 1)}
    return FactorTable.of_sizes(sizes, 1.0, factors)


def odds_of(table: FactorTable, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {label: rng.dirichlet(np.ones(len(known))) for label, known in table.candidates.items()}


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_likeliest_of_a_listed_space(seed: int) -> None:
    table = table_of((4, 3, 5, 4), seed)
    odds = odds_of(table, seed)
    every = every_architecture(table.sizes)
    values = table.values(every)
    likelihood = np.prod([odds[str(p)][every[:, p]] for p in range(4)], axis=0)
    for limit in (*np.quantile(values, [0.0, 0.01, 0.3, 0.7]), np.inf):
        within = np.where(values <= limit, likelihood, -1)
        np.testing.assert_array_equal(likeliest(table, odds, limit), every[within.argmax()])


def test_large_space_is_not_listed_and_the_limit_is_kept() -> None:
    table = table_of((7,) * 21, 0)
    # The slowest candidate of each choice is all but certain.
    odds = {label: np.full(7, 1e-6) for label in table.labels}
    for label in table.labels:
        odds[label][table.block(label).argmax()] = 1 - 6e-6
    fastest, slowest = latency_reach(table)
    assert table.values([likeliest(table, odds)])[0] > 0.9 * slowest
    for share in (0.001, 0.2, 0.6):
        limit = fastest + share * (slowest - fastest)
        found = table.values([likeliest(table, odds, limit)])[0]
        assert found <= limit
        assert share < 0.1 or found > 0.6 * limit


def test_what_cannot_be_answered_is_refused() -> None:
    table = table_of((2, 2), 0)
    with pytest.raises(SearchError, match=r"no architecture is within 0\.5"):
        likeliest(table, odds_of(table, 0), 0.5)
    with pytest.raises(LookupTableError, match="lack the choice '1'"):
        likeliest(table, {"0": [0.5, 0.5]}, 2.0)
