"""A strategy that draws a pool of architectures, ranks them by latency, and trains in that order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from nnmeter_nas.costs.table import IntArray
from nnmeter_nas.errors import SearchError

from .latency_constrained_random import LatencyConstrainedRandom
from .latency_strategy import LatencyStrategy, check_whole

ORDERS = ("ascending", "closest")


class LatencyRanked(LatencyStrategy):
    """Draw a pool of architectures, rank them by latency, and train the first.

    The pool lies inside the limits. The lookup table ranks it, so a model is built only for an architecture
    that is trained. The search is exhausted at the end of the pool. The first objective ranks the pool; with
    several devices, latency is the worst ratio to a limit.

    Args:
        base: the strategy that draws the pool. With None or NNI's own ``Random``, all architectures inside
            the limits are equally likely. A :class:`LatencyConstrainedRandom` also brings the limits and
            all other ``options``.
        top_k: number of architectures to train, from the top of the ranking.
        quantile: the same as a share of the pool, above 0 and up to 1. If both are None, all are trained.
        max_latency, min_latency: as :class:`LatencyStrategy` takes them.
        order: "ascending" trains the fastest first; "closest" trains the closest to the limit first: the
            slowest that it allows.
        pool_size: architectures to draw. Duplicates count once, and there may be fewer if the limits of
            several measures together exclude nearly all.
        options: as :class:`LatencyStrategy` takes them.

    Raises:
        ValueError, TypeError: an argument is not as described above.
    """

    def __init__(
        self,
        base: Any = None,
        top_k: int | None = None,
        quantile: float | None = None,
        max_latency: float | Mapping[str, float] | None = None,
        min_latency: float | Mapping[str, float] | None = None,
        order: Literal["ascending", "closest"] = "ascending",
        pool_size: int = 10_000,
        **options: Any,
    ) -> None:
        given = {"max_latency": max_latency, "min_latency": min_latency, **options}
        if isinstance(base, LatencyConstrainedRandom):
            if clashing := [name for name, value in given.items() if value is not None]:
                raise ValueError(f"{clashing[0]}={given[clashing[0]]!r} is for base to say, not here")
            given = base.shared_arguments()
        elif base is not None:
            _check_random(base)
        super().__init__(**given)
        self.base = base
        self.top_k = None if top_k is None else check_whole("top_k", top_k)
        self.quantile = quantile
        self.order = order
        self.pool_size = check_whole("pool_size", pool_size)
        if quantile is not None and (top_k is not None or not 0 < quantile <= 1):
            raise ValueError(
                f"quantile={quantile!r} must be above 0, at most 1, and not beside top_k={top_k!r}"
            )
        if order not in ORDERS:
            raise ValueError(f"order={order!r} must be one of {', '.join(ORDERS)}")

    def _start(self) -> None:
        if self.order == "closest" and self.problem.first_limit is None:
            raise SearchError("order='closest' needs a limit: give max_latency, or rank 'ascending'")
        own = isinstance(self.base, LatencyConstrainedRandom)
        drawer = self.base if own else LatencyConstrainedRandom(seed=self.seed)
        drawer.begin(self.problem)
        pool = drawer.pool(self.pool_size)
        self.rejected = drawer.rejected
        value = self.problem.objective_values(pool)[:, 0]
        order = np.argsort(value if self.order == "ascending" else -value, kind="stable")
        keep = self.top_k or (len(pool) if self.quantile is None else math.ceil(self.quantile * len(pool)))
        self._left = list(pool[order[:keep]][::-1])

    def _propose(self) -> IntArray | None:
        self._exhausted = not self._left
        return self._left.pop() if self._left else None


def _check_random(base: Any) -> None:
    """Raise unless ``base`` is NNI's ``Random`` without a filter."""
    kind = type(base)
    if kind.__name__ != "Random" or not kind.__module__.startswith("nni."):
        raise TypeError(f"base={base!r} must be None, a LatencyConstrainedRandom or NNI's own Random")
    if getattr(base, "filter", None) is not None:
        raise ValueError(
            "base has a model_filter, which would need a model of every architecture in the pool; give "
            "LatencyRanked the limits instead: max_latency, min_latency, limits"
        )
