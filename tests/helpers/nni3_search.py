"""A small, real NNI 3.0 experiment with trials in their own processes, for tests to run and resume.

Run as ``python -c "import nni3_search; nni3_search.main()" '{"format": "graph", ...}'``. Prints a JSON object
for each event of a strategy and one at the end. If the search fails, it exits with the search's error.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
from typing import Any

import torch
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.experiment import NasExperiment
from nni.nas.experiment.config import GraphModelFormatConfig, NasExperimentConfig
from nni.nas.strategy import Random, RegularizedEvolution
from nni.nas.strategy.middleware import Chain, Filter

from nni_trials import evaluate
from nnmeter_nas.nni.events import to_record
from nnmeter_nas.search_spaces import spos
from nnmeter_nas.strategies import LatencyConstrainedRandom, LatencyFilter, LearnedPareto, ParetoEvolution
from work import WorkPredictor

CPU = "cortexA76cpu_tflite21"


def main() -> None:
    """Run or resume the experiment that the first argument describes in JSON."""
    task = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    torch.set_num_threads(1)
    limit = task["threshold"]
    accept = LatencyFilter(limit, WorkPredictor(), patience=200)
    searches = {
        "random": lambda: Chain(Random(seed=0), Filter(accept)),
        "evolution": lambda: Chain(
            RegularizedEvolution(population_size=2, sample_size=1, mutation_prob=0.5, seed=0), Filter(accept)
        ),
        "pareto": lambda: ParetoEvolution(2, limit, predictor=CPU),
        "learned": lambda: LearnedPareto(2, limit, predictor=CPU),
        "constrained": lambda: LatencyConstrainedRandom(limit, predictor=CPU),
    }
    search = searches[task["strategy"]]()
    if hasattr(search, "listen"):
        search.listen(lambda event: print(json.dumps(to_record(event)), flush=True))
    space = spos("small", depths=(2, 1), channels=(16, 32))
    arguments = {key: task[key] for key in ("trouble", "free") if key in task}
    evaluator = FunctionalEvaluator(evaluate, folder=f"{task['folder']}/ran", **arguments)
    experiment = NasExperiment(space, evaluator, search, id="search")
    config = NasExperimentConfig.default(space, evaluator, search)
    config.experiment_working_directory = task["folder"]
    config.max_trial_number = task["trials"]
    config.trial_concurrency = task.get("concurrency", 1)
    config.trial_gpu_number = 0
    config.training_service.use_active_gpu = False
    if task["format"] == "graph":
        config.model_format = GraphModelFormatConfig(dummy_input=[1, 3, 32, 32])
    experiment.config = config
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    (experiment.resume if task.get("resume") else experiment.run)(port)
    if experiment.port is None:
        return  # interrupted: NNI has stopped the experiment
    jobs = experiment.list_trial_jobs()
    models = experiment.export_top_models(top_k=100, formatter="dict")
    found: dict[str, Any] = {
        "jobs": [[job.status, *(record.data for record in job.finalMetricData)] for job in jobs],
        "models": models,
    }
    if accept.seen:
        found |= accept.state_dict() | {"latencies": [accept.latency_of(model) for model in models]}
    print(json.dumps(found))
    experiment.stop()
