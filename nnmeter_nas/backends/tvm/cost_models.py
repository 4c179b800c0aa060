"""Cost models: what chooses the schedules that a tuning measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import SettingsError, nearest
from ...kernels.configuration import FloatArray
from .compiling import this_machine
from .imports import load_tvm
from .intrinsics import load_intrinsics
from .ranking import Ranking
from .records import seconds_of

#: The names of the cost models: none, TVM's regression, and ours, which ranks.
COST_MODELS = ("random", "xgboost", "ranking")
#: No other is shown to need fewer trials (docs/tvm.md), and it learns in less time than xgboost.
DEFAULT = "ranking"


def cost_model(name: str, seed: int) -> Any:
    """Make a cost model for TVM's search.

    Raises:
        SettingsError: there is none of this name.
    """
    schedule = load_tvm("tvm.s_tir.meta_schedule")
    load_tvm("xgboost")
    if name == "random":
        return schedule.cost_model.RandomModel(seed=seed)
    if name == "xgboost":
        # TVM guesses until 100 schedules were measured, if it is left to itself.
        return schedule.cost_model.XGBModel(num_warmup_samples=1, num_tuning_cores=1)
    if name == "ranking":
        return _ranking_model(seed)
    raise SettingsError(f"cost model {name!r} is unknown; {nearest(name, COST_MODELS)}")


def stores(module: Any, candidates: Sequence[Any]) -> list[FloatArray]:
    """Features of candidates of TVM's search, (stores, features) each: one row for each store to a buffer."""
    schedule = load_tvm("tvm.s_tir.meta_schedule")
    load_intrinsics()
    return _stores(schedule.TuneContext(mod=module, target=this_machine(), num_threads=1), candidates)


def _stores(context: Any, candidates: Sequence[Any]) -> list[FloatArray]:
    extractor = load_tvm("tvm.s_tir.meta_schedule").feature_extractor.PerStoreFeature()
    return [one.numpy() for one in extractor.extract_from(context, list(candidates))]


def _ranking_model(seed: int) -> Any:
    """Make our model, as one of TVM's."""
    schedule = load_tvm("tvm.s_tir.meta_schedule")
    ranking = Ranking(seed)

    @load_tvm("tvm.ir.utils").derived_object
    class RankingModel(schedule.cost_model.PyCostModel):  # type: ignore[name-defined]
        """Ranks by the features of stores."""

        def update(self, context: Any, candidates: Any, results: Any) -> None:
            seconds = [seconds_of(one.run_secs) for one in results]
            ranking.learn(schedule.utils.shash2hex(context.mod), _stores(context, candidates), seconds)

        def predict(self, context: Any, candidates: Any) -> FloatArray:
            return ranking.scores(_stores(context, candidates))

    return RankingModel()
