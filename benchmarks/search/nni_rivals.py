"""Run the rivals: NNI 3.0's own strategies behind a latency filter, in NNI's own engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import nni
from nni.nas.evaluator import Evaluator
from nni.nas.execution.sequential import SequentialExecutionEngine
from nni.nas.space import SimplifiedModelSpace
from nni.nas.strategy.middleware import Chain, Filter

from nnmeter_nas.errors import SearchError
from nnmeter_nas.solve.ranking import NOTHING_MS
from nnmeter_nas.strategies import LatencyFilter

from .nni_log import quiet

#: An architecture in NNI's form: candidate by label.
Sample = Mapping[str, Any]


class TableFilter(LatencyFilter):
    """A latency filter that looks latencies (ms) up instead of building and predicting each network."""

    def __init__(self, limit: float, latency: Callable[[Sample], float]) -> None:
        super().__init__(limit, _NeverAsked())
        self._look_up = latency

    def _latency(self, model: Any, sample: dict[str, Any]) -> float | None:
        return self._look_up(sample)

    def _runs(self, latency: float) -> bool:
        return latency >= NOTHING_MS


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
    with quiet(), suppress(SearchError):  # the filter's patience may run out
        Chain(strategy, Filter(TableFilter(limit, latency)))(trial_space, engine)
    return [model.sample for model in engine.list_models()]
