"""A real, small NNI 3.0 experiment with trials in processes of their own, for a test to run."""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

import nni
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.experiment import NasExperiment
from nni.nas.experiment.config import NasExperimentConfig
from nni.nas.strategy import Random
from nni.nas.strategy.middleware import Chain, Filter
from work import WorkPredictor

from nnmeter_nas.search_spaces import spos
from nnmeter_nas.strategies import LatencyFilter


def evaluate(model: Any) -> None:
    """A trial: report the candidate's size."""
    nni.report_final_result(float(sum(p.numel() for p in model.parameters())))


def main() -> None:
    """Search below the limit in the second argument, with files in the folder in the first."""
    folder, limit = sys.argv[1], float(sys.argv[2])
    accept = LatencyFilter(limit, WorkPredictor(), patience=200)
    space = spos("small", depths=(2, 1), channels=(16, 32))
    experiment = NasExperiment(space, FunctionalEvaluator(evaluate), Chain(Random(), Filter(accept)))
    config = NasExperimentConfig.default(space, experiment.evaluator, experiment.strategy)
    config.experiment_working_directory = folder
    config.max_trial_number, config.trial_concurrency, config.trial_gpu_number = 2, 1, 0
    config.training_service.use_active_gpu = False
    experiment.config = config
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    experiment.run(port)
    models = experiment.export_top_models(top_k=5, formatter="dict")
    print(json.dumps({"models": len(models), "accepted": accept.accepted,
                      "latencies": [accept.latency_of(model) for model in models]}))
    experiment.stop()
