"""A measure that is a sum of terms over few choices each has the value of adding them up by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from any_terms import any_terms, far_apart
from nnmeter_nas.costs import LatencyTable, Terms
from nnmeter_nas.costs.terms import every_architecture
from nnmeter_nas.errors import LookupTableError
from nnmeter_nas.solve.stages import least_to_come, narrowed, stages, transitions, widest_states


def by_hand(terms: Terms, row: Any) -> float:
    added = [array[tuple(row[p] for p in positions)] for positions, array in terms.factors.items()]
    return terms.constant + float(sum(added))




@given(terms=any_terms(integers=False))
def test_values_are_the_sums_of_the_terms(terms: Terms) -> None:
    every = every_architecture(terms.sizes)
    assert every.tolist() == [list(row) for row in itertools.product(*map(range, terms.sizes))]
    assert terms.values(every) == pytest.approx([by_hand(terms, row) for row in every.tolist()])
    assert (-terms).values(every) == pytest.approx(-terms.values(every))


def test_terms_of_a_table_sum_to_its_latencies_for_any_order_of_labels() -> None:
    random = np.random.default_rng(0)
    candidates = {"a": ("x", "y"), "b": ("x", "y", "z"), "c": ("x", "y")}
    blocks = {label: random.random(len(known)) for label, known in candidates.items()}
    shapes = {("c", "a"): (2, 2), ("a", "b"): (2, 3), ("b", "a"): (3, 2)}
    pairs = {labels: random.random(shape) for labels, shape in shapes.items()}
    table = LatencyTable("s", "", "d", 2.0, "", (1, 3, 8, 8), candidates, 1.5, blocks, pairs)
    for chosen in itertools.product(range(2), range(3), range(2)):
        index = dict(zip("abc", chosen, strict=True))
        expected = 1.5 + sum(ms[index[label]] for label, ms in blocks.items())
        expected += sum(ms[index[p], index[q]] for (p, q), ms in pairs.items())
        assert table.terms().values([chosen]) == pytest.approx(expected)
        assert table.latencies([chosen]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("sizes", "constant", "factors", "message"),
    [
        ((), 0.0, {}, "one position or more"),
        ((2, 0), 0.0, {}, "each at least 1"),
        ((2, 3), 0.0, {(1, 0): np.zeros((3, 2))}, "ascending positions from 0 to 1"),
        ((2, 3), 0.0, {(0, 0): np.zeros((2, 2))}, "ascending"),
        ((2, 3), 0.0, {(2,): np.zeros(2)}, "ascending positions from 0 to 1"),
        ((2, 3), 0.0, {(): np.zeros(())}, "ascending"),
        ((2, 3), 0.0, {(0, 1): np.zeros((3, 2))}, r"factor of \(0, 1\) does not fit sizes"),
        ((2, 3), 0.0, {(0,): np.array([0.0, np.nan])}, "no finite number"),
        ((2, 3), math.inf, {}, "no finite number"),
    ],
)
def test_invalid_terms_are_rejected(sizes: Any, constant: float, factors: Any, message: str) -> None:
    with pytest.raises(LookupTableError, match=message):
        Terms(sizes, constant, factors)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([[0]], r"shape \[N, 2\].*got \(1, 1\)"),
        ([[0, 3]], "the choice 1 has 3 candidates, and no index 3"),
        ([[-1, 0]], "the choice 0 has 2 candidates, and no index -1"),
        ([[0.0, 0.0]], "integers"),
    ],
)
def test_invalid_indices_are_rejected(indices: Any, message: str) -> None:
    with pytest.raises(LookupTableError, match=message):
        Terms((2, 3), 0.0, {}).values(indices)


# Stages


def walked(terms: Terms, row: Any) -> float:
    state, total = 0, terms.constant
    for stage in stages(terms):
        total += float(stage.costs[state, row[stage.position]])
        state = int(stage.successors[state, row[stage.position]])
    assert state == 0
    return total


@given(terms=any_terms())
def test_sum_over_stages_is_the_value(terms: Terms) -> None:
    every = every_architecture(terms.sizes)
    values = terms.values(every)
    assert [walked(terms, row) for row in every.tolist()] == values.tolist()
    found = stages(terms)
    assert terms.constant + least_to_come(found)[0].item() == values.min()
    assert sorted(stage.position for stage in found) == list(range(len(terms.sizes)))
    assert transitions(terms) == sum(stage.costs.size for stage in found)
    assert widest_states(terms) == max(len(stage.costs) for stage in found)


def test_positions_are_ordered_so_that_few_stay_open() -> None:
    random = np.random.default_rng(0)
    chain = {(p, p + 1): random.random((3, 3)) for p in range(29)}
    place = np.random.default_rng(1).permutation(30)
    shuffled = {
        tuple(sorted((int(place[p]), int(place[q])))): ms if place[p] < place[q] else ms.T
        for (p, q), ms in chain.items()
    }
    assert widest_states(Terms((3,) * 30, 0.0, chain)) == 3
    assert widest_states(Terms((3,) * 30, 0.0, shuffled)) <= 9
    assert least_to_come(stages(Terms((3,) * 30, 0.0, shuffled)))[0] == pytest.approx(
        least_to_come(stages(Terms((3,) * 30, 0.0, chain)))[0]
    )


@given(terms=any_terms(), most=st.integers(1, 60))
def test_narrowed_terms_are_below_by_at_most_their_bound(terms: Terms, most: int) -> None:
    lower, loss = narrowed(terms, most)
    every = every_architecture(terms.sizes)
    below = terms.values(every) - lower.values(every)
    assert below.min() >= 0
    assert below.max() <= loss
    assert transitions(lower) <= max(most, sum(terms.sizes))
    if transitions(terms) <= most:
        assert lower is terms


def test_many_interacting_positions_are_narrowed_within_bounds() -> None:
    terms = far_apart()
    assert transitions(terms) > 3**11
    assert transitions(narrowed(terms, 1000)[0]) <= 1000
