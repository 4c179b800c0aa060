"""Architectures inside limits are drawn uniformly, as brute force shows, however few of all they are."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from any_tables import any_tables, far_apart
from limits import limit_of_share
from nnmeter_nas.costs import FactorTable, load_table
from nnmeter_nas.costs.bundled import bundled_tables
from nnmeter_nas.costs.table import every_architecture
from nnmeter_nas.errors import SearchError
from nnmeter_nas.solve import sampling
from nnmeter_nas.solve.ranking import latency_reach
from nnmeter_nas.solve.sampling import UniformSampler


@pytest.fixture
def nothing_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has small spaces drawn from as large ones are."""
    monkeypatch.setattr(sampling, "LISTED", 0)


def inside(table: FactorTable, at_most: float, at_least: float) -> set[tuple[int, ...]]:
    """All architectures inside the limits."""
    every = every_architecture(table.sizes)
    values = table.values(every)
    return {tuple(row) for row in every[(at_least <= values) & (values <= at_most)].tolist()}


def assert_uniform(counts: Any, weights: Any = 1.0) -> None:
    """Counts are as drawn with probabilities in proportion to ``weights``, by a chi-square test."""
    counts, expected = np.asarray(counts, dtype=float), np.broadcast_to(weights, np.shape(counts))
    expected = expected * counts.sum() / expected.sum()
    freedom = len(counts) - 1
    assert np.sum((counts - expected) ** 2 / expected) < freedom + 4 * math.sqrt(2 * freedom) + 4


def grid(*factors: tuple[int, ...], sizes: tuple[int, ...] = (3, 2, 4, 3)) -> FactorTable:
    """Factors of the positions given, of values that share nothing."""
    random = np.random.default_rng(len(factors))
    values = {known: random.gamma(2.0, size=[sizes[p] for p in known]) for known in factors}
    return FactorTable.of_sizes(sizes, 2.0, values)


SPACES = {
    "additive": grid((0,), (1,), (2,), (3,)),
    "pairs": grid((0,), (1,), (2,), (3,), (0, 2), (1, 2), (0, 3)),
    "triples": grid((0, 1, 3), (1, 2, 3), (0, 2, 3)),
    "listed": grid((0, 1, 2, 3)),
    "ties": FactorTable.of_sizes(
        (3, 2, 4, 3), 0.0, {(p,): np.arange(s) * 0.1 for p, s in enumerate((3, 2, 4, 3))}
    ),
    "indifferent": FactorTable.of_sizes((3, 2, 4, 3), 1.0, {(2,): np.array([1.0, 2.0, 3.0, 4.0])}),
}
#: Quantiles of all values between which values are to lie.
LIMITS = [(0.0, 0.3), (0.6, 1.0), (0.4, 0.7), (0.0, 1.0)]


def limits(table: FactorTable, low: float, high: float) -> tuple[float, float]:
    """Values of architectures at two quantiles; none at the ends."""
    values = np.sort(table.values(every_architecture(table.sizes)))
    at_least = values[int(low * (len(values) - 1))] if low else -math.inf
    return (values[int(high * (len(values) - 1))] if high < 1 else math.inf), at_least


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("quantiles", LIMITS)
@pytest.mark.parametrize("way", ["listed", "counted", "coarse", "narrowed"])
def test_draws_are_uniform_among_what_is_inside(
    space: str, quantiles: tuple[float, float], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = SPACES[space]
    at_most, at_least = limits(table, *quantiles)
    known = inside(table, at_most, at_least)
    if way != "listed":
        monkeypatch.setattr(sampling, "LISTED", 0)
    if way == "coarse":
        monkeypatch.setattr(sampling, "_BINS", 5)
        monkeypatch.setattr(sampling, "_SHARE", 0.0)
    if way == "narrowed":
        monkeypatch.setattr(sampling, "_TRANSITIONS", 16)
    sampler = UniformSampler(table, at_most, at_least)
    drawn = sampler.draw(40 * len(known), np.random.default_rng(3))
    rows, counts = np.unique(drawn, axis=0, return_counts=True)
    assert {tuple(row) for row in rows.tolist()} == known
    assert_uniform(counts)
    assert abs(sampler.size - len(known)) <= 2 * max(sampler.size_error, 2 / 8192) * len(known)


@given(table=any_tables(), first=st.integers(0, 10**6), second=st.integers(0, 10**6), one_sided=st.booleans())
def test_everything_inside_is_counted_and_nothing_else_is_drawn(
    table: FactorTable, first: int, second: int, one_sided: bool
) -> None:
    every = every_architecture(table.sizes)
    values = table.values(every)
    at_least, at_most = sorted((values[first % len(every)], values[second % len(every)]))
    if one_sided:
        at_least = -math.inf
    known = inside(table, at_most, at_least)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "LISTED", 0)
        counted = UniformSampler(table, at_most, at_least)
        drawn = {tuple(row) for row in counted.draw(20, np.random.default_rng(0)).tolist()}
        assert drawn <= known
        assert counted._counted is not None
        assert {tuple(row) for row in counted._counted.every().tolist()} >= known
        assert counted._counted.total == len(counted._counted.every())
    assert UniformSampler(table, at_most, at_least).size == len(known)


@pytest.mark.usefixtures("nothing_listed")
def test_counts_that_no_integer_holds_are_as_good() -> None:
    free = (3,) * 60  # 4e28 architectures that only four positions tell apart
    table = FactorTable.of_sizes((3, 2, 4, 3, *free), 2.0, SPACES["pairs"].factors)
    at_most, at_least = limits(SPACES["pairs"], 0.2, 0.5)
    known = inside(SPACES["pairs"], at_most, at_least)
    sampler = UniformSampler(table, at_most, at_least)
    rows = sampler.draw(40 * len(known), np.random.default_rng(0))
    assert_uniform(np.unique(rows[:, :4], axis=0, return_counts=True)[1])
    assert_uniform(np.bincount(rows[:, 4:].ravel()))
    assert sampler.size == pytest.approx(len(known) * 3**60, rel=2 * sampler.size_error)


@pytest.mark.usefixtures("nothing_listed")
def test_draws_are_the_same_for_the_same_seed_and_independent() -> None:
    sampler = UniformSampler(SPACES["additive"], at_most=6.0)
    first, again = (sampler.draw(4000, np.random.default_rng(5)) for _ in range(2))
    assert first.tolist() == again.tolist()
    number = first @ [24, 12, 3, 1]
    pairs = number[0::2] * 72 + number[1::2]
    known = len(inside(SPACES["additive"], 6.0, -math.inf))
    assert len(np.unique(pairs)) > 0.9 * known**2 * (1 - math.exp(-2000 / known**2))


def test_no_draw_is_an_empty_one() -> None:
    assert UniformSampler(SPACES["pairs"]).draw(0, np.random.default_rng(0)).shape == (0, 4)
    assert UniformSampler(bundled("spos")).draw(0, np.random.default_rng(0)).shape == (0, 20)


# Limits with nothing inside


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(
    ("at_most", "at_least", "message"),
    [
        (1.0, -math.inf, r"value of at most 1; values go from 2 to 5"),
        (math.inf, 9.0, r"value of at least 9; values go from 2 to 5"),
        (9.0, 7.0, r"value of at least 7 and at most 9; values go from 2 to 5"),
        (2.75, 2.25, r"value of at least 2.25 and at most 2.75; values go from 2 to 5"),
        (2.0, 3.0, r"at_least=3 and at_most=2 leave no value"),
        (math.nan, 1.0, r"at_most=nan"),
    ],
)
def test_limits_that_nothing_meets_are_refused(
    at_most: float, at_least: float, message: str, listed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = FactorTable.of_sizes((2, 2, 2), 2.0, {(p,): np.array([0.0, 1.0]) for p in range(3)})
    if not listed:
        monkeypatch.setattr(sampling, "LISTED", 0)
    with pytest.raises(SearchError, match=message):
        UniformSampler(table, at_most, at_least)


def test_gaps_that_no_counts_resolve_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_PATIENCE", 2**12)
    table = FactorTable.of_sizes((2,) * 40, 0.0, {(p,): np.array([0.0, 1.0]) for p in range(40)})
    with pytest.raises(SearchError, match=r"as far as drawing \d+ near the limits tells"):
        UniformSampler(table, at_most=20.0 - 1e-9, at_least=20.0 - 2e-9)


# Large spaces


def bundled(space: str, device: str = "cortexA76cpu_tflite21") -> FactorTable:
    """A table that ships with the package."""
    [path] = bundled_tables().glob(f"{space}_*/{device}_2.1.npz")
    return load_table(path)


def halves_within(table: FactorTable, limit: float) -> tuple[Any, Any]:
    """First halves of the architectures of an additive space, and how many second ones keep each in a limit.

    Lists all halves that do not exceed it by themselves.
    """
    columns = [table.factors[p,] - table.factors[p,].min() for p in range(len(table.sizes))]
    budget = limit - table.constant - sum(float(array.min()) for array in table.factors.values())
    found = []
    for part in (columns[: len(columns) // 2], columns[len(columns) // 2 :]):
        rows, values = np.zeros((1, 0), dtype=np.int8), np.zeros(1)
        for column in part:
            values = (values[:, None] + column).ravel()
            last = np.tile(np.arange(len(column), dtype=np.int8), len(rows))
            rows = np.column_stack([np.repeat(rows, len(column), axis=0), last])[values <= budget]
            values = values[values <= budget]
        found.append((rows, values))
    (rows, values), (_, others) = found
    return rows, np.searchsorted(np.sort(others), budget - values, side="right")


@pytest.mark.parametrize(
    ("space", "share"), [("spos", 1e-6), ("spos", 1e-9), ("proxylessnas", 1e-9), ("proxylessnas", 1e-12)]
)
def test_few_in_a_million_are_drawn_uniformly(space: str, share: float) -> None:
    table = bundled(space)
    limit = limit_of_share(table, share)
    rows, completions = halves_within(table, limit)
    assert completions.sum() / math.prod(table.sizes) == pytest.approx(share, rel=0.1)
    sampler = UniformSampler(table, limit)
    assert sampler.size == pytest.approx(completions.sum(), rel=2 * sampler.size_error)
    drawn = sampler.draw(4000, np.random.default_rng(1))
    assert table.values(drawn).max() <= limit
    for position in range(rows.shape[1]):
        weights = np.bincount(rows[:, position], completions, minlength=table.sizes[position])
        counts = np.bincount(drawn[:, position], minlength=table.sizes[position])
        assert np.all(counts[weights == 0] == 0)
        assert_uniform(counts[weights > 0], weights[weights > 0])


@pytest.mark.parametrize("space", ["spos", "proxylessnas"])
def test_one_in_a_million_is_counted_as_a_fine_histogram_does(space: str) -> None:
    table = bundled(space)
    limit = limit_of_share(table, 1e-6)
    width, bounds = (limit - table.constant) / 200_000, []
    for rounded in (np.ceil, np.floor):
        histogram = np.zeros(200_001)
        histogram[0] = 1.0
        for column in table.factors.values():
            shifts = rounded(column / width).astype(int)
            histogram = sum(np.concatenate([np.zeros(n), histogram[: len(histogram) - n]]) for n in shifts)
        bounds.append(histogram.sum())
    assert np.array(bounds) / math.prod(table.sizes) == pytest.approx(1e-6, rel=0.05)
    sampler = UniformSampler(table, limit)
    error = 2 * sampler.size_error
    assert bounds[0] * (1 - error) <= sampler.size <= bounds[1] * (1 + error)


@pytest.mark.parametrize("space", ["spos", "proxylessnas"])
def test_the_most_extreme_architectures_are_found_at_their_own_values(space: str) -> None:
    table = bundled(space)
    least = np.array([[int(table.factors[p,].argmin()) for p in range(len(table.sizes))]])
    most = np.array([[int(table.factors[p,].argmax()) for p in range(len(table.sizes))]])
    fast = UniformSampler(table, at_most=float(table.values(least)[0]))
    slow = UniformSampler(table, at_least=float(table.values(most)[0]))
    assert (fast.size, slow.size) == (1, 1)
    assert fast.draw(2, np.random.default_rng(0)).tolist() == [*least.tolist()] * 2
    assert slow.draw(1, np.random.default_rng(0)).tolist() == most.tolist()


def test_narrow_windows_of_large_spaces_are_met() -> None:
    table = bundled("proxylessnas")
    low, high = latency_reach(table)
    at_least = (low + high) / 2
    at_most = at_least + (high - low) / 1e5
    values = table.values(UniformSampler(table, at_most, at_least).draw(500, np.random.default_rng(0)))
    assert (values.min() >= at_least, values.max() <= at_most) == (True, True)
    assert np.histogram(values, 4, (at_least, at_most))[0].min() > 80


def test_positions_that_all_interact_are_drawn_from_all_the_same() -> None:
    table = far_apart()
    values = table.values(every_architecture(table.sizes))
    limit = np.quantile(values, 0.01)
    sampler = UniformSampler(table, at_most=float(limit))
    drawn = sampler.draw(2000, np.random.default_rng(0))
    assert table.values(drawn).max() <= limit
    assert sampler.size == pytest.approx(np.count_nonzero(values <= limit), rel=2 * sampler.size_error)
    every = every_architecture(table.sizes)[values <= limit]
    for position, size in itertools.islice(enumerate(table.sizes), 4):
        counts = np.bincount(drawn[:, position], minlength=size)
        assert_uniform(counts, np.bincount(every[:, position], minlength=size))
