"""Ranking a space finds its very best architectures without listing it, and ones next to a wanted latency."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from any_tables import any_tables, far_apart
from nnmeter_nas.costs import FactorTable
from nnmeter_nas.costs.table import every_architecture
from nnmeter_nas.errors import LookupTableError, SearchError
from nnmeter_nas.solve import ranking
from nnmeter_nas.solve.ranking import (
    closest,
    fastest,
    fastest_running,
    latency_reach,
    least,
    random_architectures,
    slowest,
)


def additive(positions: int = 20, candidates: int = 4) -> FactorTable:
    random = np.random.default_rng(1)
    factors = {(p,): random.random(candidates) for p in range(positions)}
    return FactorTable.of_sizes((candidates,) * positions, 0.0, factors)


@given(table=any_tables(), count=st.integers(1, 50))
def test_best_architectures_are_those_that_listing_all_finds(table: FactorTable, count: int) -> None:
    every = every_architecture(table.sizes)
    listed = sorted(zip(table.values(every).tolist(), every.tolist(), strict=True))[:count]
    assert least(table, count).tolist() == [row for _, row in listed]
    assert table.values(slowest(table, 1)) == table.values(every).max()
    assert latency_reach(table) == (table.values(every).min(), table.values(every).max())


@given(table=any_tables(), count=st.integers(1, 50))
def test_best_architectures_are_found_without_listing(table: FactorTable, count: int) -> None:
    listed = np.sort(table.values(every_architecture(table.sizes)))[:count]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "LISTED", 0)
        found = least(table, count)
    assert table.values(found).tolist() == listed.tolist()
    assert len(np.unique(found, axis=0)) == len(found)


@pytest.mark.parametrize("listed", [ranking.LISTED, 0])
def test_what_runs_nothing_is_not_the_fastest_that_runs(
    listed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "LISTED", listed)
    product = np.multiply.outer([0.0, 1.0, 2.0], [3.0, 0.0, 1.0])
    table = FactorTable.of_sizes((3, 3), 0.0, {(0, 1): product})
    assert fastest_running(table).tolist() == [1, 2]
    assert table.values(fastest(table, 1)) == latency_reach(table)[0] == 0
    assert fastest_running(FactorTable.of_sizes((2,), 0.0, {})).tolist() == [0]


def test_best_architectures_of_a_space_that_none_can_list() -> None:
    table = additive(60, 5)
    best = fastest(table, 100)
    values = table.values(best)
    assert values[0] == pytest.approx(sum(array.min() for array in table.factors.values()))
    assert np.all(np.diff(values) >= 0)


def test_more_interactions_than_can_be_told_apart_are_refused() -> None:
    with pytest.raises(LookupTableError, match=r"too many choices interact.*rank a sample"):
        least(far_apart(), 1)


@pytest.mark.parametrize("target", [5.5, 8.0, 12.0, 14.5])
def test_close_architectures_are_close_all_over_a_large_space(target: float) -> None:
    table = additive()
    found = closest(table, target, 10)
    misses = np.abs(table.values(found) - target)
    assert misses.max() < 0.01
    assert np.all(np.diff(misses) >= 0)
    assert len(np.unique(found, axis=0)) == 10
    within = closest(table, target, 10, limit=target)
    assert np.all(table.values(within) <= target)
    assert table.values(within)[0] > target - 0.01


def test_architectures_are_close_below_a_limit_that_few_meet() -> None:
    table = additive()
    limit = table.values(least(table, 50))[-1]
    assert table.values(closest(table, limit, 1, limit=limit)) == limit


def test_nothing_is_close_where_all_exceed_the_limit() -> None:
    table = FactorTable.of_sizes((2, 2), 0.0, {(0,): np.array([1.0, 2.0]), (1,): np.array([3.0, 4.0])})
    with pytest.raises(SearchError, match="values go from 4 to 6"):
        closest(table, 1.0, 5, limit=3.0)


def test_random_architectures_are_of_every_candidate() -> None:
    found = random_architectures(FactorTable.of_sizes((2, 3), 0.0, {}), 300, seed=1)
    assert {tuple(row) for row in found.tolist()} == set(itertools.product(range(2), range(3)))
