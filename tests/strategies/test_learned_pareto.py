"""LearnedPareto finds more than chance, and the parts that it is made of are right."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmeter_nas.costs.measures import Measure
from nnmeter_nas.costs.table import FactorTable, IntArray, every_architecture
from nnmeter_nas.strategies import LatencyConstrainedRandom, LatencyStrategy, LearnedPareto, Problem
from nnmeter_nas.strategies.hypervolume import Front, even_directions
from nnmeter_nas.strategies.surrogate import Features, Scores, Surrogate

SIZES = (4,) * 6


def problem(sizes: tuple[int, ...] = SIZES, seed: int = 0) -> Problem:
    """Latencies of blocks; larger indices take longer."""
    rng = np.random.default_rng(seed)
    factors = {(p,): np.sort(rng.uniform(0, 2, size)) for p, size in enumerate(sizes)}
    candidates = {f"layer_{p}": tuple(f"block{c}" for c in range(size)) for p, size in enumerate(sizes)}
    latency = Measure("latency_ms", "ms", FactorTable(candidates, 1.0, factors))
    return Problem(candidates, {"latency_ms": latency}, {"latency_ms": 9.0})


def accuracy(row: IntArray) -> float:
    """Larger blocks do better, with diminishing returns; blocks differ, and neighbours interact."""
    rng = np.random.default_rng(5)
    quality = rng.standard_normal((len(row), 8)) * 0.3
    score = sum(0.4 * math.sqrt(c) + quality[p, c] for p, c in enumerate(row.tolist()))
    return 1 / (1 + math.exp(-score / 2)) + 0.02 * sum(a == b for a, b in itertools.pairwise(row.tolist()))


def hypervolume(found: Problem, rows: list[IntArray], metrics: list[float]) -> float:
    """Hypervolume of trials, with accuracy 0.4 and 9 ms as the reference point."""
    ms = found.objective_values(np.array(rows))[:, 0]
    gains = np.column_stack([np.array(metrics) - 0.4, (9.0 - ms) / 9.0])
    return Front.of(gains, even_directions(2, 2000)).hypervolume


def run(strategy: LatencyStrategy, trials: int) -> tuple[list[IntArray], list[float]]:
    rows, metrics = [], []
    for _ in range(trials):
        row = strategy.ask()
        assert row is not None
        rows.append(row)
        metrics.append(accuracy(row))
        strategy.tell(row, metrics[-1])
    return rows, metrics


class TestStrategy:
    def test_finds_most_of_the_front_with_few_trials_and_more_than_random(self) -> None:
        found = problem()
        every = found.listed()
        assert every is not None
        true = hypervolume(found, list(every), [accuracy(row) for row in every])
        shares = []
        for seed in range(3):
            strategies = LearnedPareto(seed=seed), LatencyConstrainedRandom(seed=seed)
            for strategy in strategies:
                strategy.begin(problem())
            shares.append([hypervolume(found, *run(one, 40)) / true for one in strategies])
        learned, random = np.mean(shares, axis=0)
        assert learned > 0.97
        assert learned > random + 0.02

    def test_a_large_space_is_searched_too(self) -> None:
        large = problem((6,) * 16)
        assert large.listed() is None
        best = {}
        for strategy in (LearnedPareto(seed=0), LatencyConstrainedRandom(seed=0)):
            strategy.begin(problem((6,) * 16))
            best[type(strategy)] = hypervolume(large, *run(strategy, 40))
        assert best[LearnedPareto] > 1.05 * best[LatencyConstrainedRandom]

    def test_expects_what_its_model_says_and_better_and_better(self) -> None:
        strategy = LearnedPareto(seed=0)
        strategy.begin(problem())
        rows, metrics = run(strategy, 60)
        expected = [strategy.expected(row) for row in rows]
        assert expected[: strategy.start] == [None] * strategy.start
        assert all(one is not None and one.low <= one.metric <= one.high for one in expected[12:])
        off = [abs(one.metric - metric) for one, metric in zip(expected, metrics, strict=True) if one]
        assert np.median(off[24:]) < np.median(np.abs(np.diff(sorted(metrics)[::20])))

    def test_importance_falls_on_the_choices_that_matter(self) -> None:
        strategy = LearnedPareto(seed=0)
        strategy.begin(problem())
        assert strategy.importance() == {}
        for _ in range(40):
            row = strategy.ask()
            assert row is not None
            strategy.tell(row, float(row[2] + 0.1 * row[4]))
        found = strategy.importance()
        assert math.isclose(sum(found.values()), 1.0)
        assert max(found, key=lambda label: found[label]) == "layer_2"

    def test_running_trials_are_not_proposed_again_and_count_as_expected(self) -> None:
        strategy = LearnedPareto(seed=0)
        strategy.begin(problem())
        run(strategy, 12)
        rows = [strategy.ask() for _ in range(8)]
        assert len({tuple(row) for row in rows if row is not None}) == 8

    def test_what_is_like_failed_trials_is_avoided(self) -> None:
        strategy = LearnedPareto(seed=0)
        strategy.begin(problem())
        failed = []
        for _ in range(50):
            row = strategy.ask()
            assert row is not None
            failed.append(bool(row[0] >= 2))
            strategy.tell(row, None if failed[-1] else accuracy(row))
        assert np.mean(failed[30:]) < 0.5 * np.mean(failed[:12])

    def test_goes_on_after_a_replay_as_if_nothing_happened(self) -> None:
        whole = LearnedPareto(seed=3)
        whole.begin(problem())
        rows, _ = run(whole, 30)
        again = LearnedPareto(seed=3)
        again.begin(problem())
        for row in rows[:20]:
            taken = again.retake(row)
            assert taken is not None
            again.tell(taken, accuracy(taken))
        assert [row.tolist() for row in run(again, 10)[0]] == [row.tolist() for row in rows[20:]]

    def test_retakes_nothing_twice_and_nothing_outside_the_limits(self) -> None:
        strategy = LearnedPareto(seed=0)
        strategy.begin(problem())
        row = strategy.problem.draw(1, np.random.default_rng(0))[0]
        assert strategy.retake(row) is not None
        assert strategy.retake(row) is None
        assert strategy.retake(np.full(6, 3)) is None

    def test_ends_when_all_was_tried(self) -> None:
        strategy = LearnedPareto(seed=0)
        strategy.begin(problem((2, 3)))
        run(strategy, len(problem((2, 3)).listed()))
        assert strategy.ask() is None
        assert strategy.exhausted

    def test_metrics_that_are_all_equal(self) -> None:
        strategy = LearnedPareto(seed=0)
        strategy.begin(problem())
        for _ in range(20):
            row = strategy.ask()
            assert row is not None
            strategy.tell(row, 0.5)
        assert math.isclose(strategy.expected(row).metric, 0.5)


class TestHypervolume:
    @settings(deadline=None)
    @given(st.integers(1, 6), st.integers(0, 2**32 - 1))
    def test_two_objectives_as_the_area_of_steps(self, count: int, seed: int) -> None:
        points = np.random.default_rng(seed).random((count, 2))
        order = np.argsort(-points[:, 0])
        area, reached = 0.0, 0.0
        for x, y in points[order]:
            area += x * max(y - reached, 0.0)
            reached = max(reached, y)
        found = Front.of(points, even_directions(2, 20_000)).hypervolume
        assert math.isclose(found, area, rel_tol=2e-3, abs_tol=1e-4)

    def test_three_objectives(self) -> None:
        directions = even_directions(3, 200_000)
        assert math.isclose(Front.of([[1.0, 1.0, 0.5]], directions).hypervolume, 0.5, rel_tol=0.02)
        front = Front.of([[1.0, 1.0, 0.5]], directions)
        assert math.isclose(front.improvements(np.array([[1.0, 1.0, 1.0]]))[0], 0.5, rel_tol=0.02)

    def test_what_is_dominated_improves_nothing(self) -> None:
        front = Front.of([[0.5, 0.5]], even_directions(2, 256))
        assert front.improvements(np.array([[0.4, 0.5], [-1.0, 2.0]])).tolist() == [0.0, 0.0]


class TestSurrogate:
    def test_predicts_what_it_learned_and_is_unsure_far_from_it(self) -> None:
        rows = every_architecture(SIZES)
        rng = np.random.default_rng(0)
        seen = rng.choice(len(rows), 80, replace=False)
        features = Features(SIZES, lambda some: some.sum(axis=1, keepdims=True), rows).of(rows)
        truth = rows[:, 0] - 0.5 * rows[:, 1] + 0.1 * rows[:, 2] * rows[:, 3]
        model = Surrogate(features[seen], truth[seen])
        mean, deviation = model.predict(features)
        assert np.corrcoef(mean, truth)[0, 1] > 0.95
        assert deviation[seen].mean() < np.delete(deviation, seen).mean()

    def test_scores_do_not_depend_on_the_scale_of_metrics(self) -> None:
        metrics = np.array([0.1, 0.9, 0.5, 0.5, 0.7])
        np.testing.assert_allclose(Scores(metrics).of(metrics), Scores(1e6 * metrics).of(1e6 * metrics))
        assert Scores(metrics).metrics(np.array([5.0]))[0] > 0.9

    def test_scores_keep_the_distances_of_good_metrics_and_fence_off_poor_ones(self) -> None:
        metrics = np.array([0.1, 0.7, 0.8, 0.85, 0.9])
        scores = Scores(metrics).of(metrics)
        np.testing.assert_allclose((scores[4] - scores[3]) / (scores[3] - scores[2]), 1.0)
        assert (scores[1] - scores[0]) / (scores[4] - scores[3]) < 6  # it is 12 between the metrics
