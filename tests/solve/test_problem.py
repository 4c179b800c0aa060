"""Limits hold for every architecture given to a search, and every architecture within them can be found."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnmeter_nas.costs.measures import Measure
from nnmeter_nas.costs.table import FactorTable
from nnmeter_nas.errors import SearchError, SpaceError
from nnmeter_nas.solve.problem import Problem

SIZES = (3, 4, 2, 3)
EVERYTHING = np.array(list(itertools.product(*map(range, SIZES))))


def table(seed: int, sizes: tuple[int, ...] = SIZES, pairs: bool = False) -> FactorTable:
    """Random positive table, of pairs of neighbours too if wanted."""
    rng = np.random.default_rng(seed)
    factors: dict[tuple[int, ...], Any] = {(p,): rng.uniform(0, 2, size) for p, size in enumerate(sizes)}
    if pairs:
        factors |= {(p, p + 1): rng.uniform(0, 1, sizes[p : p + 2]) for p in range(len(sizes) - 1)}
    return FactorTable.of_sizes(sizes, 1.0, factors)


def summed(name: str, of: FactorTable, unit: str = "ms") -> Measure:
    """A measure that is a sum."""
    return Measure(name, unit, of)


def built(name: str, of: FactorTable) -> Measure:
    """The same measure as one that has to be asked for architecture by architecture."""
    return Measure(name, "ms", None, of.values)


def problem(
    maxima: dict[str, float], *measures: Measure, sizes: tuple[int, ...] = SIZES, **more: Any
) -> Problem:
    """A problem with unnamed choices. Its objective is the first measure, unless that is latency."""
    candidates = {f"layer_{p}": tuple(f"block{c}" for c in range(size)) for p, size in enumerate(sizes)}
    more.setdefault("objectives", [measures[0].name])
    return Problem(candidates, {measure.name: measure for measure in measures}, maxima, **more)


def quantile(of: FactorTable, share: float) -> float:
    return float(np.quantile(of.values(EVERYTHING), share))


@pytest.mark.parametrize("second", [summed, built])
def test_each_architecture_inside_all_limits_is_drawn_as_often_as_any_other(second: Any) -> None:
    first, other = table(0, pairs=True), table(1)
    limits = {"latency_ms": quantile(first, 0.5), "energy": quantile(other, 0.6)}
    inside = (first.values(EVERYTHING) <= limits["latency_ms"]) & (
        other.values(EVERYTHING) <= limits["energy"]
    )
    expected = {tuple(row) for row in EVERYTHING[inside].tolist()}
    assert 10 < len(expected) < 40
    rejected: Counter[str] = Counter()
    measures = summed("latency_ms", first), second("energy", other)
    drawn = problem(limits, *measures).draw(6000, np.random.default_rng(0), rejected)
    counts = Counter(map(tuple, drawn.tolist()))
    assert set(counts) == expected
    mean = 6000 / len(expected)
    # With up to 40 degrees of freedom, 99.99 % of chi-square values are below 83.
    assert sum((count - mean) ** 2 for count in counts.values()) / mean < 83
    assert sum(rejected.values()) > 0


def test_limits_from_below_and_above_both_hold_and_values_at_a_limit_are_inside() -> None:
    of = table(0)
    values = np.sort(of.values(EVERYTHING))
    low, high = float(values[20]), float(values[40])
    narrow = problem({"latency_ms": high}, summed("latency_ms", of), minima={"latency_ms": low})
    drawn = of.values(narrow.draw(2000, np.random.default_rng(0)))
    assert (drawn.min(), drawn.max()) == (low, high)
    listed = narrow.listed()
    assert listed is not None
    assert len(listed) == 21


def test_drawing_is_as_easy_under_a_limit_that_one_in_a_million_meets() -> None:
    sizes = (4,) * 20
    of = table(3, sizes)
    random = of.values(np.random.default_rng(0).integers(sizes, size=(10_000, 20)))
    rare = problem(
        {"latency_ms": float(random.mean() - 4.75 * random.std())}, summed("latency_ms", of), sizes=sizes
    )
    assert rare.inside(rare.draw(500, np.random.default_rng(1))).all()


def test_without_limits_everything_is_drawn() -> None:
    drawn = problem({}, summed("latency_ms", table(0))).draw(3000, np.random.default_rng(0))
    assert len(np.unique(drawn, axis=0)) == len(EVERYTHING)


def test_values_come_in_the_order_of_names_and_objectives_in_theirs() -> None:
    of = {"latency_ms": table(0), "flops": table(1), "params": table(2)}
    both = problem({}, *(summed(name, t) for name, t in of.items()), objectives=["params", "latency"])
    expected = np.stack([t.values(EVERYTHING) for t in of.values()], axis=1)
    assert both.names == ("latency_ms", "flops", "params")
    assert both.values(EVERYTHING) == pytest.approx(expected)
    assert both.objective_values(EVERYTHING) == pytest.approx(expected[:, [2, 0]])


def test_of_several_devices_the_worst_ratio_to_a_limit_counts() -> None:
    fast, slow, flops = table(0), table(1), table(2)
    limits = {"latency_ms_fast": 2.0, "latency_ms_slow": 8.0, "flops": 1e-3}
    several = problem(
        limits,
        summed("latency_ms_fast", fast),
        summed("latency_ms_slow", slow),
        summed("flops", flops, ""),
        objectives=["latency"],
    )
    expected = np.maximum(fast.values(EVERYTHING) / 2, slow.values(EVERYTHING) / 8)
    assert several.objective_values(EVERYTHING)[:, 0] == pytest.approx(expected)
    assert several.worst_ratio(EVERYTHING) == pytest.approx(flops.values(EVERYTHING) / 1e-3)


def test_an_architecture_and_its_row_stand_for_each_other() -> None:
    one = problem({}, summed("latency_ms", table(0)))
    for row in EVERYTHING[::7]:
        assert one.row(one.architecture(row)).tolist() == row.tolist()
    assert one.architecture(EVERYTHING[-1])["layer_1"] == "block3"
    with pytest.raises(SpaceError, match="layer_9"):
        one.row({"layer_9": "block0"})


@given(seed=st.integers(0, 200), share=st.floats(0.02, 0.9), start=st.integers(0, len(EVERYTHING) - 1))
def test_repair_changes_no_more_positions_than_it_takes(seed: int, share: float, start: int) -> None:
    of = table(seed)
    one = problem({"latency_ms": quantile(of, share)}, summed("latency_ms", of))
    row = EVERYTHING[start]
    repaired = one.repair(row, np.random.default_rng(seed))
    assert repaired is not None
    assert one.inside(repaired[None]).all()
    inside = EVERYTHING[one.inside(EVERYTHING)]
    assert np.count_nonzero(repaired != row) == np.count_nonzero(inside != row, axis=1).min()


def test_repair_meets_limits_of_several_measures_and_from_below() -> None:
    first, other = table(0, pairs=True), table(1)
    limits = {"latency_ms": quantile(first, 0.4)}
    both = problem(
        limits, summed("latency_ms", first), built("size", other), minima={"size": quantile(other, 0.5)}
    )
    repaired = [both.repair(row, np.random.default_rng(0)) for row in EVERYTHING]
    found = [row for row in repaired if row is not None]
    assert len(found) > 0.9 * len(EVERYTHING)
    assert both.inside(np.array(found)).all()


def test_repair_gives_up_where_no_change_brings_it_closer() -> None:
    # From (0, 0) every single change makes it worse, although (1, 1) is inside.
    trap = FactorTable.of_sizes((2, 2), 0.0, {(0, 1): np.array([[2.0, 3.0], [3.0, 1.0]])})
    one = problem({"latency_ms": 1.5}, summed("latency_ms", trap), sizes=(2, 2))
    assert one.repair(np.array([0, 0]), np.random.default_rng(0)) is None
    fixed = FactorTable.of_sizes((1,), 2.0, {})
    one = problem({"latency_ms": 1.5}, summed("latency_ms", fixed), sizes=(1,))
    assert one.repair(np.array([0]), np.random.default_rng(0)) is None


def test_spread_takes_one_from_each_part_of_the_allowed_range() -> None:
    sizes = (4,) * 12
    of = table(5, sizes)
    one = problem({"latency_ms": 14.0}, summed("latency_ms", of), sizes=sizes)
    low = 1.0 + sum(float(column.min()) for column in of.factors.values())
    found = of.values(one.spread(10, np.random.default_rng(0)))
    assert np.floor((found - low) / (14.0 - low) * 10 - 1e-9).clip(0).tolist() == list(range(10))


def test_spread_stays_inside_other_limits_and_fills_empty_parts() -> None:
    gap = FactorTable.of_sizes((2, 3), 0.0, {(0,): np.array([0.0, 100.0]), (1,): np.array([0.0, 1.0, 2.0])})
    other = table(1, (2, 3))
    limit = float(np.sort(other.values(list(itertools.product(range(2), range(3)))))[4])
    one = problem({"size": limit}, summed("latency_ms", gap), summed("size", other), sizes=(2, 3))
    found = one.spread(8, np.random.default_rng(0))
    assert found.shape == (8, 2)
    assert one.inside(found).all()


def test_spread_along_a_measure_that_is_no_sum_covers_its_range() -> None:
    of = table(0)
    found = of.values(
        problem({"latency_ms": 6.0}, built("latency_ms", of)).spread(8, np.random.default_rng(0))
    )
    inside = of.values(EVERYTHING)[of.values(EVERYTHING) <= 6.0]
    assert np.ptp(found) > 0.6 * np.ptp(inside)
    assert found.max() <= 6.0


@pytest.mark.parametrize("kind", [summed, built])
def test_a_limit_that_nothing_meets_is_named_with_the_fastest_architecture(kind: Any) -> None:
    of = table(0)
    fastest = EVERYTHING[of.values(EVERYTHING).argmin()]
    name = f"layer_3=block{fastest[3]}"
    least = float(of.values(fastest[None])[0])
    one = problem({"latency_ms": least * 0.99}, kind("latency_ms", of))
    with pytest.raises(
        SearchError, match=rf"latency_ms at most .* fastest that it holds is {least:.6g} ms .*{name}"
    ):
        one.check()
    problem({"latency_ms": least}, kind("latency_ms", of)).check()


def test_a_limit_that_only_an_empty_network_meets_names_the_fastest_that_runs() -> None:
    factor = np.multiply.outer(np.arange(3.0), np.arange(3.0))
    of = FactorTable.of_sizes((3, 3), 0.0, {(0, 1): factor})
    one = problem({"latency_ms": 0.5}, summed("latency_ms", of), sizes=(3, 3))
    with pytest.raises(SearchError, match=r"fastest .* is 1 ms \(layer_0=block1, layer_1=block1\)"):
        one.check()


def test_a_limit_from_below_that_nothing_meets_is_named_with_the_slowest_architecture() -> None:
    of = table(0)
    most = float(of.values(EVERYTHING).max())
    one = problem({}, summed("latency_ms", of), minima={"latency_ms": most * 1.01})
    with pytest.raises(SearchError, match=f"the slowest that it holds is {most:.6g} ms"):
        one.check()


def test_limits_that_only_exclude_each_other_are_all_named() -> None:
    of = table(0, pairs=True)
    against = -of
    shifted = FactorTable.of_sizes(against.sizes, against.constant + 100, against.factors)
    low = quantile(of, 0.3)
    limits = {"latency_ms": low, "size": 100 - quantile(of, 0.6)}
    one = problem(limits, summed("latency_ms", of), summed("size", shifted, ""))
    with pytest.raises(
        SearchError, match=r"latency_ms at most .* ms, size at most .*the closest has latency_ms"
    ):
        one.check()


def test_those_outside_are_counted_under_the_limit_that_they_do_not_meet() -> None:
    first, other = table(0), table(1)
    limits = {"latency_ms": quantile(first, 0.5), "flops": quantile(other, 0.5)}
    one = problem(limits, summed("latency_ms", first), summed("flops", other, ""))
    slow = first.values(EVERYTHING) > limits["latency_ms"]
    large = other.values(EVERYTHING) > limits["flops"]
    assert one.reasons(EVERYTHING) == {
        f"latency_ms above {limits['latency_ms']:.6g} ms": slow.sum(),
        f"flops above {limits['flops']:.6g}": (large & ~slow).sum(),
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"maxima": {"latency": 5.0}}, "maxima: no measure is called 'latency'; did you mean 'latency_ms'"),
        ({"maxima": {"latency_ms": math.nan}}, "maxima: the limit nan of 'latency_ms' must be a number"),
        ({"maxima": {"latency_ms": 0.0}}, "must be positive"),
        ({"minima": {"flops": 1.0}}, "minima: no measure is called 'flops'"),
        ({"objectives": ["accuracy"]}, "objectives: no measure is called 'accuracy'"),
        ({"objectives": []}, "objectives is empty"),
        ({"measures": {"latency_ms": summed("latency_ms", table(0, (2, 2)))}}, "is of another space"),
        (
            {
                "measures": {f"latency_ms_{d}": summed(d, table(0)) for d in "ab"},
                "maxima": {"latency_ms_a": 3.0},
            },
            "'latency_ms_b' has none",
        ),
    ],
)
def test_invalid_arguments_are_rejected_immediately(arguments: dict[str, Any], words: str) -> None:
    candidates = {f"layer_{p}": tuple(map(str, range(size))) for p, size in enumerate(SIZES)}
    measures = {"latency_ms": summed("latency_ms", table(0))}
    with pytest.raises(SearchError, match=words):
        Problem(**{"candidates": candidates, "measures": measures, "maxima": {}, **arguments})


def test_rows_of_another_space_are_rejected() -> None:
    with pytest.raises(SearchError, match=r"\[N, 4\]"):
        problem({}, summed("latency_ms", table(0))).values([[0, 0]])


def test_pool_is_smaller_if_limits_together_exclude_nearly_all() -> None:
    """Only 126 of 262,144 architectures meet both: five times block0, four times block2."""
    sizes = (4,) * 9
    first = FactorTable.of_sizes(sizes, 1.0, {(p,): np.array([0.0, 1.0, 1.0, 2.0]) for p in range(9)})
    other = FactorTable.of_sizes(sizes, 1.0, {(p,): np.array([1.0, 1.0, 0.0, 2.0]) for p in range(9)})
    both = problem(
        {"latency_ms": 5.0, "size": 6.0}, summed("latency_ms", first), summed("size", other), sizes=sizes
    )
    drawn = both.draw_up_to(100_000, np.random.default_rng(0))
    assert 0 < len(drawn) < 100_000
    assert both.inside(drawn).all()


def test_a_measure_may_be_limited_to_nothing() -> None:
    of = FactorTable.of_sizes(SIZES, 0.0, {(0,): np.array([0.0, 1.0, 2.0])})
    none = problem({"large_kernels": 0.0}, summed("large_kernels", of, ""))
    assert not none.draw(50, np.random.default_rng(0))[:, 0].any()
    repaired = none.repair(np.array([2, 1, 1, 1]), np.random.default_rng(0))
    assert repaired is not None
    assert repaired.tolist() == [0, 1, 1, 1]
