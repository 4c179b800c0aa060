"""A real, small NNI 2.10.1 experiment, for tests to run in a process of its own.

Run as ``python -c "import nni_search; nni_search.main()" '{"engine": "py", ...}'`` with this folder on
the path; trials import this module too. Prints one JSON object, or ends with the search's error.
It never stops the experiment itself: ending must do.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
from typing import Any

import nni
import torch
from nni.retiarii import strategy
from nni.retiarii.evaluator import FunctionalEvaluator
from nni.retiarii.experiment.pytorch import RetiariiExeConfig, RetiariiExperiment
from work import WorkPredictor

from nnmeter_nas.search_spaces import spos
from nnmeter_nas.strategies import LatencyFilter


def evaluate(model_class: Any) -> None:
    """A trial: build the candidate, run it once and report its size."""
    model = model_class()
    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    nni.report_final_result(float(sum(p.numel() for p in model.parameters())))


def main() -> None:
    """Run the experiment that the JSON in the first argument describes."""
    task = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    torch.set_num_threads(1)
    latency_filter = LatencyFilter(task["threshold"], WorkPredictor(), patience=task["patience"])
    searches = {
        "random": lambda: strategy.Random(model_filter=latency_filter),
        "evolution": lambda: strategy.RegularizedEvolution(
            population_size=2, sample_size=1, cycles=2, model_filter=latency_filter
        ),
    }
    experiment = RetiariiExperiment(
        spos("small"), FunctionalEvaluator(evaluate), [], searches[task["strategy"]]()
    )
    config = RetiariiExeConfig("local")
    config.experiment_working_directory = task["folder"]
    config.trial_concurrency = 1
    config.max_trial_number = 2
    config.trial_gpu_number = 0
    if task["engine"] == "graph":
        from nni.nas.experiment.config.engine_config import BaseEngineConfig

        config.execution_engine = BaseEngineConfig(dummy_input=[1, 3, 32, 32])
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    experiment.run(config, port)
    best = experiment.export_top_models(formatter="dict", top_k=1)[0]
    print(json.dumps({
        "seen": latency_filter.seen, "accepted": latency_filter.accepted,
        "rejected": latency_filter.rejected, "unreadable": latency_filter.unreadable,
        "latencies": [candidate.latency_ms for candidate in latency_filter.candidates],
        "best": best, "best_latency_ms": latency_filter.latency_of(best),
    }))
