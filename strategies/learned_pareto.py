"""Search that learns the metric from its trials, and tries what improves the Pareto front most."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from nnmeter_nas.costs.measures import Measure
from nnmeter_nas.costs.table import IntArray
from nnmeter_nas.kernels.configuration import FloatArray
from nnmeter_nas.nni.events import Expected
from nnmeter_nas.solve.problem import Problem
from nnmeter_nas.supernet.paths import Paths
from nnmeter_nas.supernet.space import Space

from . import nsga2
from .hypervolume import Front, even_directions
from .latency_strategy import LatencyStrategy, Quantity, check_whole, key
from .surrogate import Features, Scores, Surrogate

#: Directions in which a front is measured, and quantiles of a prediction that are tried out.
_DIRECTIONS, _QUANTILES = 128, 8
#: Where a space is too large to list: architectures drawn, and moves around the front, for each proposal.
_DRAWN, _MOVED = 2048, 2048
#: Of these, so many are looked at closely: those that an optimist would take.
_CLOSELY = 512
#: An optimist expects so many standard deviations above the mean.
_OPTIMISM = 1.5
#: Metrics below this quantile of all trials do not add to the hypervolume.
_REFERENCE = 0.1
#: Choices that a move changes, on average; how often a choice is dealt out anew to tell its importance.
_CHANGES, _DEALS = 1.5, 10
#: Architectures that moves start from: the first front, and at least so many.
_PARENTS = 8


class LearnedPareto(LatencyStrategy):
    """Learn the metric from the trials, and propose what improves the hypervolume most.

    Latency and the other objectives are known of all architectures; the metric is not. A model of the metric
    (:mod:`nnmeter_nas.strategies.surrogate`) is fitted to the trials that have ended. Of all architectures
    inside the limits, or of many where a space is too large to list, the one with the largest expected
    improvement of the hypervolume is tried next (:mod:`nnmeter_nas.strategies.hypervolume`).

    * The first ``start`` architectures are spread over the range of the first objective.
    * A trial that runs counts as if it had the metric expected of it.
    * A failed trial counts as a poor one, so that what is like it is avoided if there is better.

    Args:
        start: architectures to try before the model is asked, at least 2.
        max_latency, min_latency: as :class:`LatencyStrategy` takes them.
        hints: more quantities that may help to tell the metric without training, as ``objectives`` takes
            them; the model sees those that have limits or are objectives anyway. Flops and parameters told
            nothing more about NAS-Bench-201 than latency and paths do.
        options: as :class:`LatencyStrategy` takes them.

    Raises:
        ValueError, TypeError: an argument is not as described above.
    """

    def __init__(
        self,
        start: int = 12,
        max_latency: float | Mapping[str, float] | None = None,
        min_latency: float | Mapping[str, float] | None = None,
        hints: Sequence[Quantity] = (),
        **options: Any,
    ) -> None:
        super().__init__(max_latency, min_latency, **options)
        self.start = check_whole("start", start, 2)
        if isinstance(hints, str):
            raise ValueError(f"hints={hints!r} must be a list such as ['flops', 'params']")
        self.hints = hints
        self._hints: list[Measure] = []
        self._paths: Paths | None = None

    def make_problem(self, space: Space) -> Problem:
        """Make the problem as :meth:`LatencyStrategy.make_problem` does, and find hints at the metric."""
        problem = super().make_problem(space)
        known = dict(problem.measures)
        self._hints = [
            found
            for found in (self._measure(space, hint, known) for hint in self.hints)
            if found.name not in problem.measures
        ]
        self._paths = None if space.supernet is None else Paths(space.supernet, tuple(space.candidates))
        return problem

    def expected(self, row: npt.ArrayLike) -> Expected | None:
        """What was expected of an architecture when it was proposed; None if the model was not asked."""
        return self._expected.get(key(row))

    def importance(self) -> dict[str, float]:
        """How much of what the model knows it owes to each choice, by label; the shares add up to 1.

        Permutation importance (Breiman, "Random Forests", Machine Learning 45, 2001): by how much the model's
        scores of the trials change, squared, while one choice is dealt out anew among them. It is empty
        before there is a model.
        """
        if len(self._tried) < self.start:
            return {}
        rows = self._rows()
        surrogate, _ = self._learned()
        before, _ = surrogate.predict(self._described(rows))
        rng = np.random.default_rng(self.seed)
        changes = []
        for position in range(rows.shape[1]):
            dealt = np.repeat(rows[None], _DEALS, axis=0)
            for deal in dealt:
                deal[:, position] = rng.permutation(deal[:, position])
            after, _ = surrogate.predict(self._features.of(dealt.reshape(-1, rows.shape[1])))
            changes.append(float(np.square(after.reshape(_DEALS, -1) - before).mean()))
        total = sum(changes) or 1.0
        return {label: change / total for label, change in zip(self.problem.labels, changes, strict=True)}

    def _start(self) -> None:
        self._first = list(self._rng.permutation(self.problem.spread(self.start, self._rng)))
        self._tried: list[tuple[IntArray, float | None]] = []
        self._expected: dict[tuple[int, ...], Expected] = {}
        self._every = self.problem.listed()
        sample = self.problem.draw(_DRAWN, self._rng) if self._every is None else self._every
        self._features = Features(self.problem.sizes, self._numbers, sample)
        self._of_every = None if self._every is None else self._features.of(self._every)
        self._place = {} if self._every is None else {key(row): i for i, row in enumerate(self._every)}
        self._directions = even_directions(1 + len(self.problem.objectives), _DIRECTIONS)

    def retake(self, row: IntArray) -> IntArray | None:
        """Take an architecture that was asked for before, without a model of what was known then.

        To fit all models again would take minutes, and another machine rounds numbers in another way. None if
        the architecture is outside the limits, or was taken already.
        """
        self._check_begun()
        if key(row) in self._asked or not self.problem.inside(row[None])[0]:
            return None
        self._take(row)
        return row

    def _propose(self) -> IntArray | None:
        # Anew for each, so that what was taken again is followed by what would have followed it.
        self._rng = np.random.default_rng([self.seed or 0, len(self._asked)])
        row = self._spread_out()
        if row is None and sum(metric is not None for _, metric in self._tried) >= 2:
            row = self._best_guess()
        row = self._draw_new() if row is None else row
        self._exhausted = row is None
        return row

    def _learn(self, row: IntArray, metric: float | None) -> None:
        self._tried.append((row, metric))

    def _spread_out(self) -> IntArray | None:
        """A new architecture of the first ones; None if all were asked for."""
        return next((row for row in self._first if key(row) not in self._asked), None)

    def _learned(self) -> tuple[Surrogate, Scores]:
        """The model of what was tried."""
        metrics = self._metrics()
        scores = Scores(metrics)
        return Surrogate(self._described(self._rows()), scores.of(metrics)), scores

    def _rows(self) -> IntArray:
        """What was tried, ``[trials, positions]``."""
        return np.array([row for row, _ in self._tried])

    def _metrics(self) -> FloatArray:
        """Metrics of what was tried; that of a failed trial is the worst of all."""
        known = [metric for _, metric in self._tried if metric is not None]
        return np.array([min(known) if metric is None else metric for _, metric in self._tried])

    def _described(self, rows: IntArray) -> FloatArray:
        """Features of architectures inside the limits, ``[N, positions] -> [N, features]``."""
        if self._of_every is None:
            return self._features.of(rows)
        return self._of_every[[self._place[key(row)] for row in rows]]

    def _numbers(self, rows: IntArray) -> FloatArray:
        """What is known of architectures without training, ``[N, positions] -> [N, numbers]``."""
        hints = [self.problem.values(rows), *(hint.values(rows)[:, None] for hint in self._hints)]
        paths = [] if self._paths is None else [self._paths.features(rows)]
        return np.concatenate([*hints, *paths], axis=1)

    def _best_guess(self) -> IntArray | None:
        """The new architecture that is expected to improve the hypervolume most; None if none is left."""
        pool, features = self._pool()
        if not len(pool):
            return None
        surrogate, scores = self._learned()
        mean, deviation = surrogate.predict(features)
        front, gains_of = self._front(surrogate, scores)
        objectives = self.problem.objective_values(pool)

        def improvements(some: npt.NDArray[np.integer], at: FloatArray) -> FloatArray:
            """Of the architectures ``some`` with these scores, ``[n, scores] -> [n]``."""
            metrics = scores.metrics(mean[some, None] + deviation[some, None] * at)
            gains = gains_of(metrics.ravel(), np.repeat(objectives[some], len(at), axis=0))
            return front.improvements(gains).reshape(metrics.shape).mean(axis=1)

        optimistic = improvements(np.arange(len(pool)), np.array([_OPTIMISM]))
        close = np.argsort(-optimistic, kind="stable")[:_CLOSELY]
        gain = improvements(close, ndtri((np.arange(_QUANTILES) + 0.5) / _QUANTILES))
        # Where no improvement is expected any more, what is most likely to surprise.
        best = close[int(gain.argmax())] if gain.max() > 0 else int((mean + _OPTIMISM * deviation).argmax())
        metric, low, high = scores.metrics(mean[best] + deviation[best] * np.array([0.0, -1.0, 1.0])).tolist()
        self._expected[key(pool[best])] = Expected(metric, low, high)
        return pool[best]

    def _front(self, surrogate: Surrogate, scores: Scores) -> tuple[Front, Callable[..., FloatArray]]:
        """The front of what was tried and what runs, and the function that makes gains of any results.

        The reference point is a poor metric and the limits of the objectives, or the most that was seen.
        """
        rows = self._rows()
        metrics = self._metrics()
        running = np.array([one for one, count in self._running.items() for _ in range(count)])
        if len(running):
            mean, _ = surrogate.predict(self._described(running))
            rows, metrics = np.concatenate([rows, running]), np.concatenate([metrics, scores.metrics(mean)])
        objectives = self.problem.objective_values(rows)
        worst, least = objectives.max(axis=0), objectives.min(axis=0)
        limit = self.problem.first_limit
        worst[0] = worst[0] if limit is None else limit
        poor, good = float(np.quantile(metrics, _REFERENCE)), float(metrics.max())
        span = np.maximum(np.array([good - poor, *(worst - least)]), 1e-12)

        def gains_of(metrics: FloatArray, objectives: FloatArray) -> FloatArray:
            return np.column_stack([metrics - poor, worst - objectives]) / span

        return Front.of(gains_of(metrics, objectives), self._directions), gains_of

    def _pool(self) -> tuple[IntArray, FloatArray]:
        """Architectures to choose from, ``[N, positions]``, and their features; none was asked for."""
        if self._every is not None and self._of_every is not None:
            new = np.ones(len(self._every), dtype=bool)
            new[[self._place[one] for one in self._asked]] = False
            return self._every[new], self._of_every[new]
        drawn = self.problem.draw_up_to(_DRAWN, self._rng, self.rejected)
        pool = np.unique(np.concatenate([drawn, self._moved()]), axis=0)
        pool = pool[[key(row) not in self._asked for row in pool]]
        return pool, self._features.of(pool)

    def _moved(self) -> IntArray:
        """Architectures inside the limits near the front of what was tried."""
        rows = self._rows()
        fronts = nsga2.ranks(np.column_stack([-self._metrics(), self.problem.objective_values(rows)]))
        parents = rows[np.argsort(fronts, kind="stable")[: max(_PARENTS, int((fronts == 0).sum()))]]
        bred = []
        for _ in range(_MOVED):
            first, second = parents[self._rng.integers(len(parents), size=2)]
            crossed = nsga2.uniform_crossover(first, second, self._rng) if self._rng.random() < 0.5 else first
            bred.append(nsga2.mutate(crossed, self.problem.sizes, _CHANGES / len(crossed), self._rng))
        moved = np.unique(np.array(bred), axis=0)
        return np.asarray(moved[self.problem.inside(moved)])
