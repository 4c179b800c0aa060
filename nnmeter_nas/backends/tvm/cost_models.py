"""Cost models: what chooses the schedules that a tuning measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import SettingsError, nearest
from ...extras import load_extra
from ...kernels.configuration import FloatArray
from .compiling import this_machine
from .intrinsics import load_intrinsics
from .ranking import Ranking
from .records import seconds_of

_PURPOSE = "tuning with TVM"
#: The names of the cost models: none, TVM's regression, and ours, which ranks.
COST_MODELS = ("random", "xgboost", "ranking")
#: No other is shown to need fewer trials (docs/tvm.md), and it learns in less time than xgboost.
DEFAULT = "ranking"


def cost_model(name: str, seed: int) -> Any:
    """Make a cost model for TVM's search.

    Raises:
        SettingsError: there is none of this name.
    """
    schedule = load_extra("tvm.s_tir.meta_schedule", "tvm", _PURPOSE)
    load_extra("xgboost", "tvm", _PURPOSE)
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
    schedule = load_extra("tvm.s_tir.meta_schedule", "tvm", _PURPOSE)
    load_intrinsics()
    context = schedule.TuneContext(mod=module, target=this_machine(), num_threads=1)
    return [one.numpy() for one in _extractor().extract_from(context, list(candidates))]


def _extractor() -> Any:
    return load_extra("tvm.s_tir.meta_schedule", "tvm", _PURPOSE).feature_extractor.PerStoreFeature()


def _ranking_model(seed: int) -> Any:
    """Make our model, as one of TVM's."""
    schedule = load_extra("tvm.s_tir.meta_schedule", "tvm", _PURPOSE)
    utils = load_extra("tvm.s_tir.meta_schedule.utils", "tvm", _PURPOSE)
    derived_object = load_extra("tvm.ir.utils", "tvm", _PURPOSE).derived_object
    ranking, extractor = Ranking(seed), _extractor()

    @derived_object
    class RankingModel(schedule.cost_model.PyCostModel):  # type: ignore[name-defined]
        """Ranks by the features of stores."""

        def update(self, context: Any, candidates: Any, results: Any) -> None:
            features = [one.numpy() for one in extractor.extract_from(context, candidates)]
            seconds = [seconds_of(one.run_secs) for one in results]
            ranking.learn(utils.shash2hex(context.mod), features, seconds)

        def predict(self, context: Any, candidates: Any) -> FloatArray:
            return ranking.scores([one.numpy() for one in extractor.extract_from(context, candidates)])

    return RankingModel()
