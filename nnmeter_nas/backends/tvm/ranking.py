"""A cost model that is trained to rank: of two schedules of a kernel, the quicker one gets the higher score.

The loss is the pairwise one of Chen et al., "Learning to Optimize Tensor Programs" (NeurIPS 2018): the sum of
log(1 + exp(f_j - f_i)) over the pairs in which schedule i is quicker than j. Schedules of different kernels
make no pairs, so one model learns from all kernels, however long each of them takes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...kernels.configuration import FloatArray
from .imports import load_tvm

#: Boosted trees: how many, their depth, and the part of what is missing that each one adds.
_TREES, _DEPTH, _RATE = 40, 6, 0.2


class Ranking:
    """Boosted trees on features of schedules, given as (stores, features) for each.

    What a schedule has depends on its stores together: the trees see the sum and the largest of each feature.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._known: dict[Hashable, tuple[list[FloatArray], list[float]]] = {}
        self._trees: Any = None

    def learn(self, kernel: Hashable, features: Sequence[FloatArray], seconds: Sequence[float]) -> None:
        """Learn from schedules of a kernel that were measured, and from all earlier ones."""
        rows, times = self._known.setdefault(kernel, ([], []))
        rows += map(_of_schedule, features)
        times += seconds
        xgboost = load_tvm("xgboost")
        groups, pairs = list[FloatArray](), _Pairs()
        for of_kernel, of_times in self._known.values():
            groups += of_kernel
            pairs.add(np.array(of_times))
        settings = {
            "max_depth": _DEPTH, "eta": _RATE, "min_child_weight": 0, "base_score": 0.0, "nthread": 1,
            "seed": self._seed, "disable_default_eval_metric": True,
        }  # fmt: skip
        self._trees = xgboost.train(
            settings, xgboost.DMatrix(np.array(groups)), _TREES, obj=lambda scores, _: pairs.slope(scores)
        )

    def scores(self, features: Sequence[FloatArray]) -> FloatArray:
        """Score schedules between 0 and 1: the higher, the quicker; at random if nothing was learned."""
        if self._trees is None or not features:
            return self._rng.random(len(features))
        xgboost = load_tvm("xgboost")
        rows = xgboost.DMatrix(np.array([_of_schedule(one) for one in features]))
        found: FloatArray = 1 / (1 + np.exp(-self._trees.predict(rows).astype(float)))
        return found


class _Pairs:
    """The pairs of schedules of which one is quicker."""

    def __init__(self) -> None:
        self._weights: list[FloatArray] = []

    def add(self, seconds: FloatArray) -> None:
        """Add all pairs of a kernel. A pair weighs as much as its speeds differ."""
        speed = seconds.min() / seconds
        weights = np.maximum(0, speed[:, None] - speed[None, :])
        self._weights.append(weights * len(seconds) / max(weights.sum(), 1e-9))

    def slope(self, scores: npt.NDArray[np.float32]) -> tuple[FloatArray, FloatArray]:
        """First and second derivative of the loss by the score of each schedule, kernel after kernel."""
        slopes, curvatures, start = list[FloatArray](), list[FloatArray](), 0
        for weights in self._weights:
            of_kernel = scores[start : start + len(weights)].astype(float)
            start += len(weights)
            wrong = 1 / (1 + np.exp(np.clip(of_kernel[:, None] - of_kernel[None, :], -50, 50)))
            slope, curvature = weights * wrong, weights * wrong * (1 - wrong)
            slopes.append(slope.sum(axis=0) - slope.sum(axis=1))
            curvatures.append(curvature.sum(axis=0) + curvature.sum(axis=1))
        return np.concatenate(slopes), np.maximum(np.concatenate(curvatures), 1e-6)


def _of_schedule(stores: FloatArray) -> FloatArray:
    return np.concatenate([stores.sum(axis=0), stores.max(axis=0)])
