"""Predict the latency of CNNs on edge devices from their graph alone, for neural architecture search.

>>> import nnmeter_nas
>>> predictor = nnmeter_nas.load_latency_predictor("cortexA76cpu_tflite21")
>>> latency_ms = predictor.predict("model.json", model_type="nnmeter-ir")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import lazy_names

if TYPE_CHECKING:
    from .calibrate import calibrated as calibrated
    from .errors import NnMeterNasError as NnMeterNasError
    from .metrics import latency_metrics as latency_metrics
    from .predictor import Explanation as Explanation
    from .predictor import LatencyPredictor as LatencyPredictor
    from .predictor import LatencyWarning as LatencyWarning
    from .predictor import list_latency_predictors as list_latency_predictors
    from .predictor import load_latency_predictor as load_latency_predictor
    from .readers import read_model as read_model

_HOME = {
    "Explanation": "predictor",
    "LatencyPredictor": "predictor",
    "LatencyWarning": "predictor",
    "NnMeterNasError": "errors",
    "calibrated": "calibrate",
    "latency_metrics": "metrics",
    "list_latency_predictors": "predictor",
    "load_latency_predictor": "predictor",
    "read_model": "readers",
}

__all__ = list(_HOME)

__getattr__, __dir__ = lazy_names(__name__, _HOME)
