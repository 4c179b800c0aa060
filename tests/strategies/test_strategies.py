"""Strategies spend each training inside the limits, on something new, and the same whenever repeated."""

from __future__ import annotations

import itertools
import math
import pickle
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pytest

from nnmeter_nas.costs.build import build_table
from nnmeter_nas.costs.measures import Measure
from nnmeter_nas.costs.table import FactorTable, IntArray
from nnmeter_nas.errors import SearchError, UnknownDeviceError
from nnmeter_nas.predictor import load_latency_predictor
from nnmeter_nas.strategies import (
    LatencyConstrainedRandom,
    LatencyRanked,
    LatencyStrategy,
    LearnedPareto,
    ParetoEvolution,
    Problem,
)
from nnmeter_nas.supernet.choices import select
from nnmeter_nas.supernet.space import Space
from toy_supernets import residual_supernet, width_supernet

CPU, GPU = "cortexA76cpu_tflite21", "adreno640gpu_tflite21"
SIZES = (3,) * 8
#: One strategy of each kind, by its seed.
MAKERS: Mapping[str, Callable[[int], LatencyStrategy]] = {
    "random": lambda seed: LatencyConstrainedRandom(seed=seed),
    "ranked": lambda seed: LatencyRanked(pool_size=200, seed=seed),
    "pareto": lambda seed: ParetoEvolution(population=6, seed=seed),
    "learned": lambda seed: LearnedPareto(start=6, seed=seed),
}
#: Marks of strategies that fit a model before each proposal.
_SLOW = {"learned": [pytest.mark.slow]}


def named(*names: str) -> list[Any]:
    """The names of strategies, as parameters of a test."""
    return [pytest.param(name, id=name, marks=_SLOW.get(name, ())) for name in names]


every_strategy = pytest.mark.parametrize(
    "make", [pytest.param(make, id=name, marks=_SLOW.get(name, ())) for name, make in MAKERS.items()]
)


def latencies(sizes: tuple[int, ...] = SIZES, seed: int = 0) -> FactorTable:
    """Random latencies of blocks, 0 to 2 ms, and some of pairs."""
    rng = np.random.default_rng(seed)
    factors: dict[tuple[int, ...], Any] = {(p,): rng.uniform(0, 2, size) for p, size in enumerate(sizes)}
    return FactorTable.of_sizes(sizes, 1.0, {**factors, (0, 1): rng.uniform(0, 0.5, sizes[:2])})


def problem(limit: float | None = 8.0, sizes: tuple[int, ...] = SIZES, **more: Any) -> Problem:
    """A problem of latency alone."""
    candidates = {f"layer_{p}": tuple(f"block{c}" for c in range(size)) for p, size in enumerate(sizes)}
    measure = Measure("latency_ms", "ms", latencies(sizes))
    return Problem(
        candidates, {"latency_ms": measure}, {} if limit is None else {"latency_ms": limit}, **more
    )


def accuracy(row: Any, seed: int = 0) -> float:
    """Blocks that take longer do better on the whole, but not each of them, and not without end."""
    rng = np.random.default_rng([17, seed])
    sizes = (3,) * len(row)
    worth = latencies(sizes).values([row])[0] + sum(
        rng.normal(0, 0.7, size)[c] for size, c in zip(sizes, row, strict=True)
    )
    return float(1 - np.exp(-0.25 * worth))


def run(strategy: LatencyStrategy, trials: int, metric: Callable[[Any], float | None] = accuracy) -> IntArray:
    """What a strategy asks for if each trial ends before the next begins, ``[trials, positions]``."""
    rows: list[IntArray] = []
    while len(rows) < trials and (row := strategy.ask()) is not None:
        rows.append(row)
        strategy.tell(row, metric(row))
    return np.array(rows)


def begun(strategy: LatencyStrategy, of: Problem | None = None) -> LatencyStrategy:
    strategy.begin(problem() if of is None else of)
    return strategy


@every_strategy
def test_asks_for_nothing_twice_and_for_nothing_outside_the_limits(
    make: Callable[[int], LatencyStrategy],
) -> None:
    rows = run(begun(make(0)), 120)
    assert len(np.unique(rows, axis=0)) == 120
    assert problem().inside(rows).all()


@pytest.mark.parametrize("name", named("random", "pareto", "learned"))
def test_a_small_space_is_tried_whole_before_the_search_is_exhausted(name: str) -> None:
    sizes = (2, 3, 2, 3)
    of = problem(5.0, sizes)
    everything = np.array(list(itertools.product(*map(range, sizes))))
    inside = everything[of.inside(everything)]
    strategy = begun(MAKERS[name](1), of)
    found = run(strategy, 1000)
    assert strategy.exhausted
    assert strategy.ask() is None
    assert sorted(found.tolist()) == inside.tolist()


@pytest.mark.parametrize(
    ("make", "seed"),
    [
        pytest.param(make, seed, id=f"{name}-{seed}", marks=_SLOW.get(name, ()))
        for name, make in MAKERS.items()
        for seed in range(2 if name in _SLOW else 8)
    ],
)
def test_repeating_what_was_asked_and_told_repeats_the_state(
    make: Callable[[int], LatencyStrategy], seed: int
) -> None:
    """Trials end in any order, several run at once, some fail; asks in vain are not part of the record."""
    chance = random.Random(seed)
    first = begun(make(seed))
    events: list[tuple[IntArray, float | None]] = []
    running: list[IntArray] = []
    while len(events) - len(running) < 40:
        row = first.ask() if len(running) < 4 and chance.random() < 0.7 else None
        if row is not None:
            events.append((row, None))
            running.append(row)
        elif running:
            row = running.pop(chance.randrange(len(running)))
            told = math.nan if chance.random() < 0.2 else accuracy(row)
            first.tell(row, told)
            events.append((row, told))
    again = begun(make(seed))
    for row, metric in events:
        if metric is None:
            assert np.array_equal(again.ask(), row)
        else:
            again.tell(row, metric)
    for row in running:
        first.tell(row, 0.5)
        again.tell(row, 0.5)
    assert run(first, 30).tolist() == run(again, 30).tolist()
    assert first.rejected == again.rejected


@every_strategy
def test_another_seed_is_another_search(make: Callable[[int], LatencyStrategy]) -> None:
    assert run(begun(make(0)), 30).tolist() != run(begun(make(1)), 30).tolist()


@every_strategy
def test_a_strategy_that_was_pickled_before_it_began_searches_the_same(
    make: Callable[[int], LatencyStrategy],
) -> None:
    strategy = make(3)
    copied = pickle.loads(pickle.dumps(strategy))
    assert run(begun(copied), 20).tolist() == run(begun(strategy), 20).tolist()


@every_strategy
def test_nothing_inside_the_limits_is_said_before_anything_is_tried(
    make: Callable[[int], LatencyStrategy],
) -> None:
    with pytest.raises(
        SearchError, match=r"latency_ms at most 1 ms: the fastest that it holds is .*layer_7=block"
    ):
        make(0).begin(problem(1.0))


@every_strategy
def test_outcomes_of_what_does_not_run_are_refused(make: Callable[[int], LatencyStrategy]) -> None:
    with pytest.raises(SearchError, match="begin first"):
        make(0).ask()
    strategy = begun(make(0))
    row = strategy.ask()
    strategy.tell(row, 0.5)
    for told in (row, [0] * 8):
        with pytest.raises(SearchError, match="no trial of"):
            strategy.tell(told, 0.5)


@pytest.mark.parametrize(
    "make",
    [LatencyConstrainedRandom, ParetoEvolution, pytest.param(LearnedPareto, marks=pytest.mark.slow)],
)
def test_a_limit_that_one_in_a_million_meets_is_no_hindrance(make: Callable[..., LatencyStrategy]) -> None:
    sizes = (4,) * 20
    of = latencies(sizes)
    values = of.values(np.random.default_rng(0).integers(sizes, size=(10_000, 20)))
    rare = problem(float(values.mean() - 4.75 * values.std()), sizes)
    rows = run(begun(make(seed=0), rare), 40, lambda row: float(row.sum()))
    assert len(np.unique(rows, axis=0)) == 40
    assert rare.inside(rows).all()


class TestRandom:
    def test_every_architecture_inside_the_limits_comes_as_often_as_any_other(self) -> None:
        of = problem(5.0, (2, 3, 2, 3))
        inside = of.listed()
        assert inside is not None
        strategy = begun(LatencyConstrainedRandom(dedup=False), of)
        counts = Counter(map(tuple, run(strategy, 100 * len(inside)).tolist()))
        assert set(counts) == set(map(tuple, inside.tolist()))
        # 99.99 % of chi-square's values with up to 35 degrees of freedom are below 76.
        assert sum((count - 100) ** 2 for count in counts.values()) / 100 < 76
        assert not strategy.exhausted

    def test_a_pool_is_distinct_unless_repeats_are_wanted(self) -> None:
        of = problem(5.0, (2, 3, 2, 3))
        distinct = begun(LatencyConstrainedRandom(), of).pool(500)
        assert len(np.unique(distinct, axis=0)) == len(distinct)
        assert len(begun(LatencyConstrainedRandom(dedup=False), of).pool(500)) == 500


class TestRanked:
    def test_submits_the_fastest_of_its_pool_first(self) -> None:
        strategy = begun(LatencyRanked(pool_size=300))
        values = problem().values(run(strategy, 1000))[:, 0]
        assert np.all(np.diff(values) >= 0)
        assert 200 < len(values) <= 300
        assert strategy.exhausted

    def test_closest_submits_the_slowest_that_the_limit_allows_first(self) -> None:
        values = problem().values(run(begun(LatencyRanked(pool_size=300, order="closest")), 1000))[:, 0]
        assert np.all(np.diff(values) <= 0)
        assert 7.9 < values[0] <= 8.0

    def test_trains_the_first_of_the_pool_alone(self) -> None:
        whole = run(begun(LatencyRanked(pool_size=300)), 1000).tolist()
        assert run(begun(LatencyRanked(pool_size=300, top_k=30)), 1000).tolist() == whole[:30]
        quarter = run(begun(LatencyRanked(pool_size=300, quantile=0.25)), 1000).tolist()
        assert quarter == whole[: math.ceil(len(whole) / 4)]
        assert run(begun(LatencyRanked(pool_size=300, quantile=1.0)), 1000).tolist() == whole

    def test_several_devices_are_ranked_by_the_worst_ratio_to_a_limit(self) -> None:
        limits = {"latency_ms_a": 8.0, "latency_ms_b": 12.0}
        measures = {name: Measure(name, "ms", latencies(seed=i)) for i, name in enumerate(limits)}
        of = Problem({f"layer_{p}": ("a", "b", "c") for p in range(8)}, measures, limits)
        rows = run(begun(LatencyRanked(pool_size=200, order="closest"), of), 100)
        ratio = np.max([measures[name].values(rows) / limit for name, limit in limits.items()], axis=0)
        assert np.all(np.diff(ratio) <= 0)
        assert ratio[0] <= 1

    def test_a_base_of_ours_has_the_limits_and_draws_the_pool(self) -> None:
        base = LatencyConstrainedRandom(max_latency=8.0, min_latency=6.0, predictor=CPU, seed=5)
        ranked = LatencyRanked(base, pool_size=100)
        assert (ranked.max_latency, ranked.min_latency, ranked.predictor, ranked.seed) == (8.0, 6.0, CPU, 5)
        expected = begun(LatencyConstrainedRandom(seed=5)).pool(100)
        found = run(begun(ranked), 1000)
        assert sorted(found.tolist()) == sorted(expected.tolist())

    def test_random_of_nni_stands_for_everything_inside_the_limits(self) -> None:
        base = pytest.importorskip("nni.nas.strategy").Random()
        ranked = begun(LatencyRanked(base, pool_size=100, seed=2))
        assert run(ranked, 50).tolist() == run(begun(LatencyRanked(pool_size=100, seed=2)), 50).tolist()

    @pytest.mark.parametrize(
        ("arguments", "error", "words"),
        [
            (
                {"base": LatencyConstrainedRandom(), "max_latency": 5.0},
                ValueError,
                "max_latency=5.0 is for base",
            ),
            ({"base": LatencyConstrainedRandom(), "seed": 1}, ValueError, "seed=1 is for base"),
            ({"base": ParetoEvolution()}, TypeError, "NNI's own Random"),
            ({"base": random.Random()}, TypeError, "NNI's own Random"),
            ({"top_k": 0}, ValueError, "top_k=0"),
            ({"top_k": 5, "quantile": 0.5}, ValueError, "beside top_k=5"),
            ({"quantile": 1.5}, ValueError, r"quantile=1\.5"),
            ({"order": "descending"}, ValueError, "ascending, closest"),
            ({"pool_size": 2.5}, ValueError, r"pool_size=2\.5"),
        ],
    )
    def test_arguments_that_cannot_be_meant_are_refused(
        self, arguments: dict[str, Any], error: type[Exception], words: str
    ) -> None:
        with pytest.raises(error, match=words):
            LatencyRanked(**arguments)

    def test_a_filter_that_needs_models_is_refused(self) -> None:
        base = pytest.importorskip("nni.nas.strategy").Random()
        base.filter = lambda model: True
        with pytest.raises(ValueError, match="model_filter"):
            LatencyRanked(base)

    def test_closest_needs_a_limit_to_be_close_to(self) -> None:
        with pytest.raises(SearchError, match="max_latency"):
            LatencyRanked(order="closest").begin(problem(None))


class TestPareto:
    def test_the_first_generation_is_spread_over_the_latencies_inside_the_limit(self) -> None:
        values = np.sort(problem().values(run(begun(ParetoEvolution(population=8)), 8))[:, 0])
        low = float(latencies().values(np.array(list(itertools.product(*map(range, SIZES))))).min())
        assert np.floor((values - low) / (8.0 - low) * 8 - 1e-9).clip(0).tolist() == list(range(8))

    def test_a_generation_waits_for_all_its_trials_and_takes_others_for_those_that_failed(self) -> None:
        strategy = begun(ParetoEvolution(population=4))
        rows = [strategy.ask() for _ in range(4)]
        assert strategy.ask() is None
        assert not strategy.exhausted
        strategy.tell(rows[0], None)
        rows.append(strategy.ask())
        assert strategy.ask() is None
        for row in rows[1:4]:
            strategy.tell(row, accuracy(row))
        assert strategy.ask() is None
        strategy.tell(rows[4], accuracy(rows[4]))
        assert strategy.ask() is not None

    @pytest.mark.parametrize("failure", [None, math.nan, math.inf])
    def test_what_failed_is_no_parent(self, failure: float | None) -> None:
        """Without mutation, genes are those of the first generation; without a limit nothing is repaired."""
        strategy = begun(ParetoEvolution(population=10, mutation=0.0, crossover=1.0), problem(None))
        first = run(strategy, 10, lambda row: failure if row[3] == 0 else accuracy(row))
        while any(len(set(column)) < 2 for column in first[first[:, 3] != 0].T):
            first = np.concatenate(
                [first, run(strategy, 1, lambda row: failure if row[3] == 0 else accuracy(row))]
            )
        alive = sum(first[:, 3] != 0)
        while alive < 10:
            row = run(strategy, 1, lambda row: failure if row[3] == 0 else accuracy(row))[0]
            alive += row[3] != 0
        assert 0 not in run(strategy, 10)[:, 3]

    def test_children_outside_the_limit_are_repaired_and_counted(self) -> None:
        strategy = begun(ParetoEvolution(population=6, mutation=1.0))
        rows = run(strategy, 60)
        assert problem().inside(rows).all()
        assert strategy.rejected["latency_ms above 8 ms"] > 10

    def test_covers_more_of_the_front_than_random_search_with_as_many_trials(self) -> None:
        def hypervolume(strategy: LatencyStrategy, seed: int) -> float:
            rows = run(begun(strategy, problem(9.0, (3,) * 12)), 60, lambda row: accuracy(row, seed))
            ms = latencies((3,) * 12).values(rows)
            order = np.argsort(ms)
            best = np.maximum.accumulate([accuracy(row, seed) for row in rows[order]])
            return float(np.sum(best * np.diff(ms[order], append=9.0)))

        pairs = [
            (hypervolume(ParetoEvolution(seed=s), s), hypervolume(LatencyConstrainedRandom(seed=s), s))
            for s in range(6)
        ]
        assert all(ours > theirs for ours, theirs in pairs)

    def test_other_objectives_widen_the_front(self) -> None:
        """Where the metric and latency are the same for all, the second objective is what selects."""
        sizes = (3,) * 6
        flat = Measure("latency_ms", "ms", FactorTable.of_sizes(sizes, 2.0, {}))
        work = {(p,): np.array([1.0, 5.0, 9.0]) for p in range(6)}
        flops = Measure("flops", "", FactorTable.of_sizes(sizes, 0.0, work))
        candidates = {f"layer_{p}": ("a", "b", "c") for p in range(6)}
        of = Problem(candidates, {"latency_ms": flat, "flops": flops}, {}, objectives=["latency", "flops"])
        rows = run(begun(ParetoEvolution(population=10), of), 100, lambda row: 0.5)
        assert flops.values(rows[-20:]).mean() < 0.75 * flops.values(rows[:10]).mean()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"population": 1}, "population=1"),
            ({"mutation": 2.0}, r"mutation=2\.0"),
            ({"crossover": -1}, "crossover"),
        ],
    )
    def test_arguments_that_cannot_be_meant_are_refused(self, arguments: dict[str, Any], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            ParetoEvolution(**arguments)


def convolutions(graph: nx.DiGraph) -> float:
    """How many convolutions a model runs."""
    return float(sum(op == "conv" for _, op in graph.nodes(data="op")))


@pytest.fixture(scope="module")
def space() -> Space:
    return Space.of_supernet(residual_supernet())


@pytest.fixture(scope="module")
def everything(space: Space) -> IntArray:
    return np.array(list(itertools.product(*(range(len(known)) for known in space.candidates.values()))))


class TestProblemOfASpace:
    def test_latency_is_what_the_predictor_says_of_the_model_graph(
        self, space: Space, everything: IntArray
    ) -> None:
        of = LatencyConstrainedRandom(predictor=CPU).make_problem(space)
        assert of.names == ("latency_ms",)
        predictor = load_latency_predictor(CPU)
        for row in everything[::5]:
            expected = predictor.predict(space.model_graph(of.architecture(row)))
            assert of.values([row])[0, 0] == pytest.approx(expected, rel=1e-6)

    def test_each_device_has_its_limit(self, space: Space, everything: IntArray) -> None:
        free = LatencyConstrainedRandom(1e9, predictor=[CPU, GPU]).make_problem(space)
        assert free.names == (f"latency_ms_{CPU}", f"latency_ms_{GPU}")
        cpu, gpu = np.median(free.values(everything), axis=0).tolist()
        strategy = LatencyConstrainedRandom({CPU.upper(): cpu, GPU: gpu}, {GPU: gpu / 2})
        limited = strategy.make_problem(space)
        assert limited.maxima == {f"latency_ms_{CPU}": cpu, f"latency_ms_{GPU}": gpu}
        assert limited.minima == {f"latency_ms_{GPU}": gpu / 2}
        found = run(begun(strategy, limited), 100, lambda row: 0.5)
        values = free.values(everything)
        expected = np.all(values <= [cpu, gpu], axis=1) & (values[:, 1] >= gpu / 2)
        assert sorted(found.tolist()) == everything[expected].tolist()

    @pytest.mark.parametrize("name", ["memory", "memory_tflite", "size"])
    def test_memory_and_size_are_limits_and_objectives(
        self, space: Space, everything: IntArray, name: str
    ) -> None:
        free = LatencyConstrainedRandom(predictor=CPU, objectives=[name]).make_problem(space)
        values = free.values(everything)[:, free.names.index(name)]
        assert free.objective_values(everything)[:, 0].tolist() == values.tolist()
        most = float(np.median(values))
        strategy = LatencyConstrainedRandom(predictor=CPU, limits={name: most})
        found = run(begun(strategy, strategy.make_problem(space)), 100, lambda row: 0.5)
        assert sorted(found.tolist()) == everything[values <= most].tolist()
        nothing = LatencyConstrainedRandom(predictor=CPU, limits={name: 1.0})
        with pytest.raises(SearchError, match=f"{name} at most 1 bytes: the least that it holds is"):
            begun(nothing, nothing.make_problem(space))

    def test_flops_parameters_and_any_function_limit_beside_latency(
        self, space: Space, everything: IntArray
    ) -> None:
        free = LatencyConstrainedRandom(
            predictor=CPU, limits={"flops": 1e12, "params": 1e12, convolutions: 99}
        )
        names = ("latency_ms", "flops", "params", "convolutions")
        unlimited = free.make_problem(space)
        assert unlimited.names == names
        ms, flops, params, _ = np.quantile(unlimited.values(everything), 0.7, axis=0).tolist()
        limits = {"flops": flops, "params": [None, params], convolutions: (3, 3)}
        of = LatencyConstrainedRandom(ms, predictor=CPU, limits=limits).make_problem(space)
        assert (of.maxima, of.minima) == (
            dict(zip(names, (ms, flops, params, 3), strict=True)),
            {"convolutions": 3},
        )
        values = unlimited.values(everything)
        expected = np.all(values <= [ms, flops, params, 3], axis=1) & (values[:, 3] == 3)
        assert 0 < sum(expected) < len(everything)
        assert of.inside(everything).tolist() == expected.tolist()

    def test_what_is_minimised_need_not_be_limited(self, space: Space) -> None:
        of = ParetoEvolution(predictor=CPU, objectives=["latency", "params", convolutions]).make_problem(
            space
        )
        assert of.objectives == ("latency", "params", "convolutions")
        assert of.names == ("latency_ms", "params", "convolutions")
        assert of.maxima == {}

    def test_a_measure_of_ones_own_needs_no_model_graph(self, space: Space) -> None:
        sizes = tuple(len(known) for known in space.candidates.values())
        energy = Measure("energy", "mJ", latencies(sizes))
        of = LatencyConstrainedRandom(predictor=CPU, limits={energy: 4.0}).make_problem(space)
        assert of.maxima == {"energy": 4.0}
        assert of.measures["energy"] is energy

    def test_a_table_stands_for_its_device(self, space: Space, everything: IntArray) -> None:
        table = build_table(space, load_latency_predictor(GPU))
        of = LatencyConstrainedRandom(9.0, predictor=[load_latency_predictor(CPU), table]).make_problem(space)
        assert of.names == (f"latency_ms_{CPU}", f"latency_ms_{GPU}")
        assert of.values(everything)[:, 1] == pytest.approx(table.latencies(everything))
        with pytest.raises(SearchError, match="other candidates"):
            LatencyConstrainedRandom(predictor=table).make_problem(Space.of_supernet(width_supernet()))

    def test_no_model_graph_is_made_of_an_architecture_once_the_space_is_priced(self) -> None:
        supernet, made = residual_supernet(4), []

        def model_graph(architecture: Mapping[str, str]) -> nx.DiGraph:
            made.append(architecture)
            return select(supernet, architecture)

        counting = Space.of_supernet(supernet)
        counting = Space.of_function("counted", counting.candidates, model_graph)
        strategy = LatencyRanked(max_latency=10.0, predictor=CPU)
        of = strategy.make_problem(counting)
        priced = len(made)
        assert len(run(begun(strategy, of), 60, lambda row: 0.5)) == 60
        assert len(made) == priced

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({}, "predictor=None: name the device"),
            ({"predictor": []}, "name the device"),
            ({"predictor": CPU, "max_latency": {GPU: 5.0}}, f"max_latency: predictor has no device '{GPU}'"),
            (
                {"predictor": CPU, "limits": {"flop": 5.0}},
                "no measure is called 'flop'; did you mean 'flops'",
            ),
            ({"predictor": [CPU, GPU]}, f"'latency_ms_{CPU}' has none"),
        ],
    )
    def test_a_problem_that_cannot_be_meant_is_refused(
        self, space: Space, arguments: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(SearchError, match=words):
            LatencyConstrainedRandom(**arguments).make_problem(space)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"max_latency": -1.0}, ValueError, r"max_latency=-1\.0"),
        ({"max_latency": {CPU: "5"}}, ValueError, "max_latency="),
        ({"min_latency": math.inf}, ValueError, "min_latency=inf"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"objectives": "flops"}, ValueError, "objectives='flops'"),
        ({"predictor": "cortexA67"}, UnknownDeviceError, CPU),
        ({"predictor": 5}, TypeError, "predictor=5"),
        ({"predictor": [CPU, CPU]}, ValueError, "a device twice"),
        ({"maximum": 5.0}, TypeError, "maximum"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused_before_nni_starts(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        LatencyConstrainedRandom(**arguments)


def test_an_architecture_that_runs_nothing_is_not_the_fastest(space: Space) -> None:
    table = build_table(space, load_latency_predictor(CPU))
    empty = {(p,): np.arange(float(size)) for p, size in enumerate(table.sizes)}
    table = replace(table, constant=0.0, factors=empty)
    ranked = LatencyRanked(predictor=table)
    ranked.begin(ranked.make_problem(space))
    row = ranked.ask()
    assert row is not None
    assert ranked.problem.values([row]) == 1.0


def test_importing_the_package_loads_neither_nni_nor_torch() -> None:
    code = (
        "import sys, nnmeter_nas.strategies as s; from nnmeter_nas.strategies import Problem; dir(s);"
        "print([name for name in ('nni', 'torch', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
