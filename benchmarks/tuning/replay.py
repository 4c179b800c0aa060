"""Cost models choose from a pool, batch by batch, and see the times of what they chose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

import numpy as np

from nnmeter_nas.backends.tvm.imports import load_tvm
from nnmeter_nas.backends.tvm.ranking import Ranking
from nnmeter_nas.kernels.configuration import FloatArray

from .pool import Pool

#: Schedules that are chosen at a time, and those of each other kernel that a model may know beforehand.
BATCH, KNOWN = 8, 32


class Chooser(Protocol):
    """A cost model, without TVM's search around it."""

    def learn(self, kernel: Any, features: Sequence[FloatArray], seconds: Sequence[float]) -> None:
        """Learn from schedules of a kernel that were measured."""

    def scores(self, features: Sequence[FloatArray]) -> FloatArray:
        """Score schedules; those with high scores are chosen."""


class Contestant(NamedTuple):
    """What is compared.

    Attributes:
        title: its name on pages.
        make: makes it for a seed.
    """

    title: str
    make: Callable[[int], Chooser]


class Chance:
    """Chooses at random."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def learn(self, kernel: Any, features: Sequence[FloatArray], seconds: Sequence[float]) -> None:
        """Learn nothing."""

    def scores(self, features: Sequence[FloatArray]) -> FloatArray:
        """Return random numbers."""
        return self._rng.random(len(features))


class Xgboost:
    """TVM's XGBoost model. What it takes for candidates are their features."""

    def __init__(self, seed: int, **settings: int) -> None:
        schedule = load_tvm("tvm.s_tir.meta_schedule")
        np.random.seed(seed)  # TVM's model draws from numpy's global numbers before it has learned
        self._schedule = schedule
        self._model = schedule.cost_model.XGBModel._cls(num_tuning_cores=1, **settings)
        self._model.extractor = SimpleNamespace(extract_from=lambda _, features: list(map(_Tensor, features)))

    def learn(self, kernel: Any, features: Sequence[FloatArray], seconds: Sequence[float]) -> None:
        """Learn as in a tuning; ``kernel`` is TVM's module of the kernel."""
        results = [self._schedule.runner.RunnerResult([one], None) for one in seconds]
        self._model.update(SimpleNamespace(mod=kernel), list(features), results)

    def scores(self, features: Sequence[FloatArray]) -> FloatArray:
        """Score as in a tuning."""
        found: FloatArray = self._model.predict(None, list(features))
        return found


class _Tensor(NamedTuple):
    """Features as TVM's extractor gives them."""

    values: FloatArray

    def numpy(self) -> FloatArray:
        return self.values


CONTESTANTS: Mapping[str, Contestant] = {
    "random": Contestant("random", Chance),
    "xgboost": Contestant("TVM's XGBoost", Xgboost),
    "xgboost-early": Contestant(
        "TVM's XGBoost without its warm-up", lambda seed: Xgboost(seed, num_warmup_samples=1)
    ),
    "ranking": Contestant("ours, which ranks", Ranking),
}


def replayed(chooser: Chooser, pool: Pool, trials: int, seed: int, others: Iterable[Pool] = ()) -> FloatArray:
    """Let a cost model choose ``trials`` schedules from a pool.

    Args:
        chooser: has learned nothing yet.
        pool: what it chooses from.
        trials: how many it chooses.
        seed: decides the first batch, which is the same for all, unless there are ``others``.
        others: pools of other kernels, of each of which it knows ``KNOWN`` schedules beforehand.

    Returns:
        The best time so far after each trial, divided by the best of the pool, ``[trials]``.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pool.seconds))
    chosen, knows = list[int](), False

    def learn(which: Pool, places: list[int]) -> None:
        chooser.learn(which.module, [which.features[i] for i in places], which.seconds[places].tolist())

    for other in others:
        learn(other, rng.permutation(len(other.seconds))[:KNOWN].tolist())
        knows = True
    while len(chosen) < trials:
        left = order[~np.isin(order, chosen)]
        if chosen or knows:
            scores = chooser.scores([pool.features[i] for i in left])
            left = left[np.argsort(-scores, kind="stable")]
        batch = left[: min(BATCH, trials - len(chosen))].tolist()
        learn(pool, batch)
        chosen += batch
    best: FloatArray = np.minimum.accumulate(pool.seconds[chosen]) / pool.seconds.min()
    return best
