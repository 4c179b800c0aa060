"""A factor table has the value that adding up its factors by hand gives, and its stages add up to it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from any_tables import any_tables, far_apart
from nnmeter_nas.costs import FactorTable
from nnmeter_nas.costs.table import Header, every_architecture
from nnmeter_nas.errors import LookupTableError
from nnmeter_nas.solve.stages import least_to_come, narrowed, stages, transitions, widest_states


def by_hand(table: FactorTable, row: Any) -> float:
    added = [array[tuple(row[p] for p in positions)] for positions, array in table.factors.items()]
    return table.constant + float(sum(added))



@given(table=any_tables(integers=False))
def test_values_are_the_sums_of_the_factors(table: FactorTable) -> None:
    every = every_architecture(table.sizes)
    assert every.tolist() == [list(row) for row in itertools.product(*map(range, table.sizes))]
    assert table.values(every) == pytest.approx([by_hand(table, row) for row in every.tolist()])
    assert (-table).values(every) == pytest.approx(-table.values(every))


@given(table=any_tables(integers=False))
def test_one_architecture_by_name_has_the_value_of_its_row(table: FactorTable) -> None:
    for row in every_architecture(table.sizes)[::7].tolist():
        architecture = dict(zip(table.labels, map(str, row), strict=True))
        assert table.value(architecture) == pytest.approx(by_hand(table, row))
        assert table.value(dict(zip(table.labels, row, strict=True))) == table.value(architecture)
        one_of = zip(table.labels, table.sizes, row, strict=True)
        settled = {label: np.eye(size)[i] for label, size, i in one_of}
        assert table.expected(settled) == pytest.approx(by_hand(table, row))


@given(table=any_tables(integers=False), seed=st.integers(0, 99))
def test_the_expected_value_is_the_mean_over_all_architectures(table: FactorTable, seed: int) -> None:
    random = np.random.default_rng(seed)
    p = {label: random.dirichlet(np.ones(len(known))) for label, known in table.candidates.items()}
    every = every_architecture(table.sizes)
    weights = np.prod([p[label][every[:, i]] for i, label in enumerate(table.labels)], axis=0)
    assert table.expected(p) == pytest.approx(float(weights @ table.values(every)))


def test_a_table_of_another_measure_gives_no_latency() -> None:
    flops = FactorTable({"a": ("x", "y")}, 1.0, {}, Header("flops"))
    assert flops.value({"a": "x"}) == 1.0
    with pytest.raises(LookupTableError, match="is of flops, not of latency"):
        flops.latency({"a": "x"})
    with pytest.raises(LookupTableError, match="is of flops, not of latency"):
        flops.latencies([[0]])


@pytest.mark.parametrize(
    ("sizes", "constant", "factors", "message"),
    [
        ((), 0.0, {}, "one choice or more"),
        ((2, 0), 0.0, {}, "one candidate or more"),
        ((2, 3), 0.0, {(1, 0): np.zeros((3, 2))}, "ascending positions from 0 to 1"),
        ((2, 3), 0.0, {(0, 0): np.zeros((2, 2))}, "ascending"),
        ((2, 3), 0.0, {(2,): np.zeros(2)}, "ascending positions from 0 to 1"),
        ((2, 3), 0.0, {(): np.zeros(())}, "ascending"),
        ((2, 3), 0.0, {(0, 1): np.zeros((3, 2))}, r"factor of \('0', '1'\) does not fit"),
        ((2, 3), 0.0, {(0,): np.array([0.0, np.nan])}, "no finite number"),
        ((2, 3), math.inf, {}, "no finite number"),
    ],
)
def test_tables_that_are_none_are_refused(sizes: Any, constant: float, factors: Any, message: str) -> None:
    with pytest.raises(LookupTableError, match=message):
        FactorTable.of_sizes(sizes, constant, factors)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([[0]], r"shape \[N, 2\].*got \(1, 1\)"),
        ([[0, 3]], "the choice '1' has 3 candidates, and no index 3"),
        ([[-1, 0]], "the choice '0' has 2 candidates, and no index -1"),
        ([[0.0, 0.0]], "integers"),
    ],
)
def test_indices_of_nothing_are_refused(indices: Any, message: str) -> None:
    with pytest.raises(LookupTableError, match=message):
        FactorTable.of_sizes((2, 3), 0.0, {}).values(indices)


# Stages


def walked(table: FactorTable, row: Any) -> float:
    state, total = 0, table.constant
    for stage in stages(table):
        total += float(stage.costs[state, row[stage.position]])
        state = int(stage.successors[state, row[stage.position]])
    assert state == 0
    return total


@given(table=any_tables())
def test_walking_through_the_stages_adds_up_to_the_value(table: FactorTable) -> None:
    every = every_architecture(table.sizes)
    values = table.values(every)
    assert [walked(table, row) for row in every.tolist()] == values.tolist()
    found = stages(table)
    assert table.constant + least_to_come(found)[0].item() == values.min()
    assert sorted(stage.position for stage in found) == list(range(len(table.sizes)))
    assert transitions(table) == sum(stage.costs.size for stage in found)
    assert widest_states(table) == max(len(stage.costs) for stage in found)


def test_positions_are_decided_so_that_few_stay_open() -> None:
    random = np.random.default_rng(0)
    chain = {(p, p + 1): random.random((3, 3)) for p in range(29)}
    place = np.random.default_rng(1).permutation(30)
    shuffled = {
        tuple(sorted((int(place[p]), int(place[q])))): ms if place[p] < place[q] else ms.T
        for (p, q), ms in chain.items()
    }
    assert widest_states(FactorTable.of_sizes((3,) * 30, 0.0, chain)) == 3
    assert widest_states(FactorTable.of_sizes((3,) * 30, 0.0, shuffled)) <= 9
    assert least_to_come(stages(FactorTable.of_sizes((3,) * 30, 0.0, shuffled)))[0] == pytest.approx(
        least_to_come(stages(FactorTable.of_sizes((3,) * 30, 0.0, chain)))[0]
    )


@given(table=any_tables(), most=st.integers(1, 60))
def test_narrowed_terms_are_below_and_no_further_than_they_say(table: FactorTable, most: int) -> None:
    lower, loss = narrowed(table, most)
    every = every_architecture(table.sizes)
    below = table.values(every) - lower.values(every)
    assert below.min() >= 0
    assert below.max() <= loss
    assert transitions(lower) <= max(most, sum(table.sizes))
    if transitions(table) <= most:
        assert lower is table


def test_many_interacting_positions_are_narrowed_within_bounds() -> None:
    table = far_apart()
    assert transitions(table) > 3**11
    assert transitions(narrowed(table, 1000)[0]) <= 1000
