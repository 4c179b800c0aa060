"""The rivals: NNI 3.0's own strategies behind a latency filter, run by NNI's own engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import nni
from nni.nas.evaluator import Evaluator
from nni.nas.execution.sequential import SequentialExecutionEngine
from nni.nas.space import SimplifiedModelSpace
from nni.nas.strategy import Random, RegularizedEvolution
from nni.nas.strategy.middleware import Chain, Filter

from nnmeter_nas.errors import SearchError
from nnmeter_nas.strategies import LatencyFilter

#: An architecture as NNI has it: candidate by label.
Sample = Mapping[str, Any]

#: Arguments of RegularizedEvolution by what reports call them. NNI's defaults come first; with them the
#: first 100 trials are random. The others keep NNI's quarter of the population in each tournament.
EVOLUTIONS: Mapping[str, Mapping[str, Any]] = {
    "100/25/0.05": {"population_size": 100, "sample_size": 25},
    "20/5/0.05": {"population_size": 20, "sample_size": 5},
    "10/3/0.05": {"population_size": 10, "sample_size": 3},
    "20/5/0.2": {"population_size": 20, "sample_size": 5, "mutation_prob": 0.2},
    "10/3/0.2": {"population_size": 10, "sample_size": 3, "mutation_prob": 0.2},
}


class TableFilter(LatencyFilter):
    """A latency filter that looks up what it would otherwise predict from a network built for the purpose.

    Args:
        limit: latency in ms.
        latency: gives the latency in ms of a candidate.
    """

    def __init__(self, limit: float, latency: Callable[[Sample], float]) -> None:
        super().__init__(limit, _NeverAsked())
        self._look_up = latency

    def _latency(self, model: Any, sample: dict[str, Any]) -> float | None:
        return self._look_up(sample)


class _NeverAsked:
    """What a filter that predicts nothing has for its predictor."""

    def predict(self, graph: Any) -> float:
        raise AssertionError("latencies are looked up")


class _LookedUp(Evaluator):
    """Trials that report a known accuracy, and so need no network."""

    def __init__(self, accuracy: Callable[[Sample], float]) -> None:
        self._accuracy = accuracy

    def _execute(self, model: Any) -> None:
        nni.report_final_result(self._accuracy(model.sample))


def random_search(seed: int) -> Any:
    """NNI's Random with its default parameters."""
    return Random(seed=seed)


def evolution(setting: str, seed: int) -> Any:
    """NNI's RegularizedEvolution, with what :data:`EVOLUTIONS` has under ``setting``."""
    return RegularizedEvolution(**EVOLUTIONS[setting], seed=seed)


def search(
    strategy: Any,
    space: Any,
    limit: float,
    latency: Callable[[Sample], float],
    accuracy: Callable[[Sample], float],
    trials: int,
) -> list[Sample]:
    """What a strategy of NNI tries behind the filter, in order.

    Args:
        strategy: of NNI.
        space: the NNI space.
        limit: latency in ms.
        latency: of a candidate in ms.
        accuracy: that its trial reports.
        trials: how many at most; a strategy that finds nothing new, or nothing within the limit, ends
            earlier.
    """
    engine = SequentialExecutionEngine(max_model_count=trials)
    trial_space = SimplifiedModelSpace.from_model(space, _LookedUp(accuracy))
    with _quiet(), suppress(SearchError):  # the filter's patience may run out
        Chain(strategy, Filter(TableFilter(limit, latency)))(trial_space, engine)
    return [model.sample for model in engine.list_models()]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without NNI's log lines, which name every candidate."""
    logger = logging.getLogger("nni")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
