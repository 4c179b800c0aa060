"""Ranking a space finds its best architectures, and those closest to a given latency, without listing it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from any_terms import any_terms, far_apart
from nnmeter_nas.costs import Terms
from nnmeter_nas.costs.terms import every_architecture
from nnmeter_nas.errors import LookupTableError, SearchError
from nnmeter_nas.solve import ranking
from nnmeter_nas.solve.ranking import (
    closest,
    fastest,
    latency_reach,
    least,
    random_architectures,
    slowest,
)


def additive(positions: int = 20, candidates: int = 4) -> Terms:
    random = np.random.default_rng(1)
    return Terms((candidates,) * positions, 0.0, {(p,): random.random(candidates) for p in range(positions)})


@given(terms=any_terms(), count=st.integers(1, 50))
def test_best_architectures_match_a_full_listing(terms: Terms, count: int) -> None:
    every = every_architecture(terms.sizes)
    listed = sorted(zip(terms.values(every).tolist(), every.tolist(), strict=True))[:count]
    assert least(terms, count).tolist() == [row for _, row in listed]
    assert terms.values(slowest(terms, 1)) == terms.values(every).max()
    assert latency_reach(terms) == (terms.values(every).min(), terms.values(every).max())


@given(terms=any_terms(), count=st.integers(1, 50))
def test_best_architectures_are_found_without_listing(terms: Terms, count: int) -> None:
    listed = np.sort(terms.values(every_architecture(terms.sizes)))[:count]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "LISTED", 0)
        found = least(terms, count)
    assert terms.values(found).tolist() == listed.tolist()
    assert len(np.unique(found, axis=0)) == len(found)


def test_best_architectures_of_a_huge_space_are_found() -> None:
    terms = additive(60, 5)
    best = fastest(terms, 100)
    values = terms.values(best)
    assert values[0] == pytest.approx(sum(array.min() for array in terms.factors.values()))
    assert np.all(np.diff(values) >= 0)


def test_too_many_interactions_are_rejected() -> None:
    with pytest.raises(LookupTableError, match=r"too many choices interact.*rank a sample"):
        least(far_apart(), 1)


@pytest.mark.parametrize("target", [5.5, 8.0, 12.0, 14.5])
def test_architectures_close_to_any_latency_are_found_in_a_large_space(target: float) -> None:
    terms = additive()
    found = closest(terms, target, 10)
    misses = np.abs(terms.values(found) - target)
    assert misses.max() < 0.01
    assert np.all(np.diff(misses) >= 0)
    assert len(np.unique(found, axis=0)) == 10
    within = closest(terms, target, 10, limit=target)
    assert np.all(terms.values(within) <= target)
    assert terms.values(within)[0] > target - 0.01


def test_architectures_close_to_a_tight_limit_are_found() -> None:
    terms = additive()
    limit = terms.values(least(terms, 50))[-1]
    assert terms.values(closest(terms, limit, 1, limit=limit)) == limit


def test_no_architecture_is_close_if_all_exceed_the_limit() -> None:
    terms = Terms((2, 2), 0.0, {(0,): np.array([1.0, 2.0]), (1,): np.array([3.0, 4.0])})
    with pytest.raises(SearchError, match="values go from 4 to 6"):
        closest(terms, 1.0, 5, limit=3.0)


def test_random_architectures_use_every_candidate() -> None:
    found = random_architectures(Terms((2, 3), 0.0, {}), 300, seed=1)
    assert {tuple(row) for row in found.tolist()} == set(itertools.product(range(2), range(3)))
