"""A search with NNI 2.10.1 as nn-Meter's users write it, with a filter of their own, for tests to run.

Run as ``python -m nnmeter_nas.compat nn_meter_search.py FOLDER``. Writes how its trials ended to
``statuses.json`` in the folder.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import nni.retiarii.strategy as strategy
import torch
from nn_meter import load_latency_predictor
from nni.experiment import rest
from nni.nas.experiment.config.engine_config import BaseEngineConfig
from nni.retiarii.evaluator.functional import FunctionalEvaluator
from nni.retiarii.experiment.pytorch import RetiariiExeConfig, RetiariiExperiment

from nni_trials import evaluate_with_nn_meter
from nnmeter_nas.search_spaces import spos


class LatencyFilter:
    """Accept candidates below a latency."""

    def __init__(self, threshold: float, predictor: str) -> None:
        self.predictors = load_latency_predictor(predictor)
        self.threshold = threshold

    def __call__(self, ir_model: Any) -> bool:
        latency = self.predictors.predict(ir_model, "nni-ir")
        return latency < self.threshold


def main() -> None:
    """Run the search."""
    folder = sys.argv[1]
    torch.set_num_threads(1)
    search = strategy.RegularizedEvolution(
        population_size=2, sample_size=1, model_filter=LatencyFilter(1e3, "cortexA76cpu_tflite21")
    )
    evaluator = FunctionalEvaluator(evaluate_with_nn_meter, folder=f"{folder}/ran")
    experiment = RetiariiExperiment(spos("small"), evaluator, [], search)
    config = RetiariiExeConfig("local")
    config.experiment_working_directory = folder
    config.trial_concurrency = 1
    config.max_trial_number = 2
    config.trial_gpu_number = 0
    config.training_service.use_active_gpu = False
    config.execution_engine = BaseEngineConfig(dummy_input=[1, 3, 32, 32])
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    experiment.run(config, port)
    statuses = [job["status"] for job in rest.get(port, "/trial-jobs")]
    Path(folder, "statuses.json").write_text(json.dumps(statuses))


if __name__ == "__main__":
    main()
