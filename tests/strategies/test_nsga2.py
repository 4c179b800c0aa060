"""NSGA-II sorts, spreads and varies as published; a fault here would only show as searches that find less."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnmeter_nas.strategies.nsga2 import (
    crowding,
    crowding_of_all,
    mutate,
    ranks,
    survivors,
    tournament,
    uniform_crossover,
)

#: Few distinct values, so that points tie.
points = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.lists(st.integers(0, 4), min_size=width, max_size=width), min_size=1, max_size=25
    )
)


def dominates(a: list[int], b: list[int]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


@given(found=points)
def test_fronts_are_those_that_peeling_off_what_nothing_dominates_gives(found: list[list[int]]) -> None:
    expected, left, front = [-1] * len(found), set(range(len(found))), 0
    while left:
        best = {i for i in left if not any(dominates(found[j], found[i]) for j in left)}
        for i in best:
            expected[i] = front
        left, front = left - best, front + 1
    assert ranks(found).tolist() == expected


def test_points_of_a_front_do_not_dominate_each_other_and_each_later_one_is_dominated() -> None:
    found = np.random.default_rng(0).random((60, 3)).tolist()
    front = ranks(found)
    for i, rank in enumerate(front):
        rivals = [j for j in range(60) if dominates(found[j], found[i])]
        assert rank == (1 + max(front[j] for j in rivals) if rivals else 0)


def test_crowding_is_what_the_neighbours_span_as_a_share_of_the_front() -> None:
    front = [[0.0, 10.0], [1.0, 4.0], [3.0, 2.0], [10.0, 0.0]]
    assert crowding(front).tolist() == pytest.approx([math.inf, 3 / 10 + 8 / 10, 9 / 10 + 4 / 10, math.inf])


@given(found=points, seed=st.integers(0, 1000))
def test_crowding_knows_neither_order_nor_scale_of_points(found: list[list[int]], seed: int) -> None:
    _, first = np.unique(found, axis=0, return_index=True)
    distinct = np.array(found, dtype=float)[first] + 1e-3 * np.random.default_rng(seed).random(
        (len(first), 1)
    )
    order = np.random.default_rng(seed).permutation(len(distinct))
    assert crowding(distinct[order]) == pytest.approx(crowding(distinct)[order])
    assert crowding(1000 * distinct - 5) == pytest.approx(crowding(distinct))


def test_points_on_a_front_spread_evenly_are_equally_crowded_and_ends_are_not_at_all() -> None:
    distance = crowding([[float(i), 10.0 - i] for i in range(11)])
    assert distance[[0, -1]].tolist() == [math.inf, math.inf]
    assert distance[1:-1] == pytest.approx([0.4] * 9)


@given(found=points, share=st.floats(0, 1))
def test_no_survivor_is_of_a_worse_front_or_in_a_more_crowded_place_than_one_left_out(
    found: list[list[int]], share: float
) -> None:
    count = round(share * len(found))
    kept = survivors(found, count).tolist()
    assert len(set(kept)) == count
    front = ranks(found)
    distance = crowding_of_all(found, front)
    left = [i for i in range(len(found)) if i not in kept]
    worth = [(front[i], -distance[i]) for i in range(len(found))]
    assert all(worth[i] <= worth[j] for i in kept for j in left)


def test_ends_of_the_front_survive_whenever_two_do() -> None:
    angles = np.random.default_rng(3).uniform(0, math.pi / 2, 40)
    found = np.stack([1 - np.sin(angles), 1 - np.cos(angles)], axis=1)
    assert set(survivors(found, 2)) == {angles.argmin(), angles.argmax()}


def test_tournament_prefers_the_better_front_and_then_the_less_crowded_place() -> None:
    front, distance = np.array([0, 0, 1]), np.array([math.inf, 1.0, math.inf])
    rng = np.random.default_rng(0)
    won = np.bincount([tournament(front, distance, rng) for _ in range(3000)], minlength=3)
    # Of the three pairs of different points, two are won by the first, one by the second.
    assert won[2] == 0
    assert won[0] == pytest.approx(2000, abs=100)


def test_tournament_of_one_has_a_winner() -> None:
    assert tournament(np.array([0]), np.array([math.inf]), np.random.default_rng(0)) == 0


def test_crossover_takes_each_gene_of_either_parent_evenly_and_independently() -> None:
    rng = np.random.default_rng(0)
    zeros, ones = np.zeros(6, dtype=np.int64), np.ones(6, dtype=np.int64)
    children = np.array([uniform_crossover(zeros, ones, rng) for _ in range(4000)])
    assert children.mean(axis=0) == pytest.approx(np.full(6, 0.5), abs=0.03)
    assert np.corrcoef(children.T) == pytest.approx(np.eye(6), abs=0.06)


def test_crossover_of_equals_changes_nothing() -> None:
    row = np.arange(6)
    assert uniform_crossover(row, row, np.random.default_rng(0)).tolist() == row.tolist()


def test_mutation_changes_positions_at_its_rate_to_any_other_candidate() -> None:
    rng = np.random.default_rng(0)
    row, sizes = np.array([0, 2, 0]), (2, 4, 1)
    mutants = np.array([mutate(row, sizes, 0.25, rng) for _ in range(8000)])
    assert (mutants != row).mean(axis=0) == pytest.approx([0.25, 0.25, 0.0], abs=0.02)
    assert np.bincount(mutants[:, 1], minlength=4) / 8000 == pytest.approx(
        [1 / 12, 1 / 12, 0.75, 1 / 12], abs=0.02
    )
    assert row.tolist() == [0, 2, 0]


@pytest.mark.parametrize(("rate", "changed"), [(0.0, 0), (1.0, 5)])
def test_mutation_at_the_ends_of_its_rate_changes_nothing_or_everything(rate: float, changed: int) -> None:
    row = np.zeros(5, dtype=np.int64)
    assert np.count_nonzero(mutate(row, [3] * 5, rate, np.random.default_rng(0))) == changed


def test_evolution_of_these_parts_finds_the_front_of_a_known_problem() -> None:
    """Leading ones, trailing zeros: the front is every row of ones followed by zeros, 13 in 4,096."""
    rng = np.random.default_rng(0)

    def objectives(rows: Any) -> Any:
        leading = np.cumprod(rows, axis=1).sum(axis=1)
        trailing = np.cumprod(1 - rows[:, ::-1], axis=1).sum(axis=1)
        return -np.stack([leading, trailing], axis=1)

    rows = rng.integers(2, size=(40, 12))
    for _ in range(200):
        front = ranks(objectives(rows))
        distance = crowding_of_all(objectives(rows), front)
        parents = [
            (rows[tournament(front, distance, rng)], rows[tournament(front, distance, rng)]) for _ in rows
        ]
        children = [mutate(uniform_crossover(a, b, rng), [2] * 12, 1 / 12, rng) for a, b in parents]
        both = np.unique(np.concatenate([rows, children]), axis=0)
        rows = both[survivors(objectives(both), 40)]
    found = objectives(rows)
    assert {tuple(row) for row in -found[ranks(found) == 0]} == {(i, 12 - i) for i in range(13)}
