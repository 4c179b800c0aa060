"""Ranking a space finds its very best architectures without listing it, and ones next to a wanted latency."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnmeter_nas.ranking import IntArray, closest, least


@st.composite
def spaces(draw: Any) -> tuple[list[Any], dict[tuple[int, int], Any]]:
    """Costs of a few positions and of some pairs of them, with many ties."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    every_pair = list(itertools.combinations(range(len(sizes)), 2))
    pairs = draw(st.lists(st.sampled_from(every_pair), unique=True)) if every_pair else []
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    costs = [random.integers(0, 5, size).astype(float) for size in sizes]
    return costs, {(p, q): random.integers(-2, 3, (sizes[p], sizes[q])).astype(float) for p, q in pairs}


def total(costs: list[Any], pairs: dict[tuple[int, int], Any], chosen: Any) -> float:
    own = sum(float(costs[p][c]) for p, c in enumerate(chosen))
    return own + sum(float(cost[chosen[p], chosen[q]]) for (p, q), cost in pairs.items())


@given(space=spaces(), count=st.integers(1, 50))
def test_best_architectures_are_those_that_listing_all_finds(space: Any, count: int) -> None:
    costs, pairs = space
    everything = itertools.product(*(range(len(column)) for column in costs))
    listed = sorted((total(costs, pairs, chosen), chosen) for chosen in everything)[:count]
    assert [(total(costs, pairs, c), tuple(c)) for c in least(costs, pairs, count).tolist()] == listed


@pytest.mark.parametrize("target", [5.5, 8.0, 12.0, 14.5])
def test_close_architectures_are_close_all_over_a_large_space(target: float) -> None:
    random = np.random.default_rng(1)
    table = random.random((20, 4))

    def latencies(chosen: IntArray) -> Any:
        return table[np.arange(20), chosen].sum(axis=1)

    found = closest(latencies, [4] * 20, target, 10)
    assert np.abs(latencies(found) - target).max() < 0.01
    assert len(np.unique(found, axis=0)) == 10
    within = closest(latencies, [4] * 20, target, 10, limit=target)
    assert np.all(latencies(within) <= target)
    assert latencies(within)[0] > target - 0.01


def test_nothing_is_close_where_all_exceed_the_limit() -> None:
    table = np.array([[1.0, 2.0], [3.0, 4.0]])
    found = closest(lambda chosen: table[[0, 1], chosen].sum(axis=1), [2, 2], 1.0, 5, limit=3.0)
    assert found.shape == (0, 2)
