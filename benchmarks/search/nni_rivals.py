"""Run the rivals: NNI 3.0's own strategies behind a latency filter, in NNI's own engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import nni
from nni.nas.evaluator import Evaluator
from nni.nas.execution.sequential import SequentialExecutionEngine
from nni.nas.space import SimplifiedModelSpace
from nni.nas.strategy.middleware import Chain, Filter

from nnmeter_nas.errors import SearchError
from nnmeter_nas.strategies import LatencyFilter

#: An architecture in NNI's form: candidate by label.
Sample = Mapping[str, Any]

#: Arguments of RegularizedEvolution, by their name in reports. The first are NNI's defaults, with which the
#: first 100 trials are random. The others keep NNI's tournament size of a quarter of the population.
EVOLUTIONS: Mapping[str, Mapping[str, Any]] = {
    "100/25/0.05": {"population_size": 100, "sample_size": 25},
    "20/5/0.05": {"population_size": 20, "sample_size": 5},
    "10/3/0.05": {"population_size": 10, "sample_size": 3},
    "20/5/0.2": {"population_size": 20, "sample_size": 5, "mutation_prob": 0.2},
    "10/3/0.2": {"population_size": 10, "sample_size": 3, "mutation_prob": 0.2},
}


class TableFilter(LatencyFilter):
    """A latency filter that looks latencies (ms) up instead of building and predicting each network."""

    def __init__(self, limit: float, latency: Callable[[Sample], float]) -> None:
        super().__init__(limit, _NeverAsked())
        self._look_up = latency

    def _latency(self, model: Any, sample: dict[str, Any]) -> float | None:
        return self._look_up(sample)


class _NeverAsked:
    """Placeholder predictor for a filter that predicts nothing."""

    def predict(self, graph: Any) -> float:
        raise AssertionError("latencies are looked up")


class _LookedUp(Evaluator):
    """Trials that report a known accuracy and so need no network."""

    def __init__(self, accuracy: Callable[[Sample], float]) -> None:
        self._accuracy = accuracy

    def _execute(self, model: Any) -> None:
        nni.report_final_result(self._accuracy(model.sample))


def search(
    strategy: Any,
    space: Any,
    limit: float,
    latency: Callable[[Sample], float],
    accuracy: Callable[[Sample], float],
    trials: int,
) -> list[Sample]:
    """Run an NNI strategy behind the filter, for up to ``trials``; return the candidates it tried, in order.

    A strategy that finds nothing new, or nothing within the limit, stops earlier. ``latency`` returns the
    latency of a candidate in ms, ``accuracy`` what its trial reports.
    """
    engine = SequentialExecutionEngine(max_model_count=trials)
    trial_space = SimplifiedModelSpace.from_model(space, _LookedUp(accuracy))
    with _quiet(), suppress(SearchError):  # the filter's patience may run out
        Chain(strategy, Filter(TableFilter(limit, latency)))(trial_space, engine)
    return [model.sample for model in engine.list_models()]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence NNI's log, which names every candidate."""
    logger = logging.getLogger("nni")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
