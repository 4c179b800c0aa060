"""A small, real NNI 2.10.1 experiment, for tests to run in its own process.

Run as ``python -c "import nni_search; nni_search.main()" '{"engine": "py", ...}'`` with this folder on
the path; trials import this folder's modules too. Prints a JSON object for each event of a strategy and one
at the end. If the search fails, it exits with the search's error. It never stops the experiment explicitly:
exiting must be enough.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
from typing import Any

import torch
from nni.experiment import rest
from nni.retiarii import strategy
from nni.retiarii.evaluator import FunctionalEvaluator
from nni.retiarii.experiment.pytorch import RetiariiExeConfig, RetiariiExperiment

from nni_trials import evaluate
from nnmeter_nas.nni.events import to_record
from nnmeter_nas.search_spaces import spos
from nnmeter_nas.strategies import LatencyConstrainedRandom, LatencyFilter, LearnedPareto, ParetoEvolution
from work import WorkPredictor

CPU = "cortexA76cpu_tflite21"


def main() -> None:
    """Run the experiment that the first argument describes in JSON."""
    task = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    torch.set_num_threads(1)
    limit = task["threshold"]
    accept = LatencyFilter(limit, WorkPredictor(), patience=task.get("patience", 200))
    searches = {
        "random": lambda: strategy.Random(model_filter=accept),
        "evolution": lambda: strategy.RegularizedEvolution(
            population_size=2, sample_size=1, model_filter=accept
        ),
        "pareto": lambda: ParetoEvolution(2, limit, predictor=CPU, seed=0),
        "learned": lambda: LearnedPareto(2, limit, predictor=CPU, seed=0),
        "constrained": lambda: LatencyConstrainedRandom(limit, predictor=CPU, seed=0),
    }
    search = searches[task["strategy"]]()
    space = small() if hasattr(search, "listen") or task.get("small") else spos("small")
    if hasattr(search, "listen"):
        search.listen(lambda event: print(json.dumps(to_record(event)), flush=True))
    arguments = {"folder": f"{task['folder']}/ran", "trouble": task.get("trouble", [])}
    experiment = RetiariiExperiment(space, FunctionalEvaluator(evaluate, **arguments), [], search)
    config = RetiariiExeConfig("local")
    config.experiment_working_directory = task["folder"]
    config.trial_concurrency = task.get("concurrency", 1)
    config.max_trial_number = task.get("trials", 2)
    config.trial_gpu_number = 0
    config.training_service.use_active_gpu = False
    if task["engine"] == "graph":
        from nni.nas.experiment.config.engine_config import BaseEngineConfig

        config.execution_engine = BaseEngineConfig(dummy_input=[1, 3, 32, 32])
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    experiment.run(config, port)
    jobs = rest.get(port, "/trial-jobs")
    best = next(iter(experiment.export_top_models(formatter="dict", top_k=1)), None)
    found: dict[str, Any] = {
        "jobs": [[job["status"], *map(_metric, job.get("finalMetricData", []))] for job in jobs],
        "best": best,
    }
    if accept.seen:
        found |= accept.state_dict() | {
            "latencies": [candidate.latency_ms for candidate in accept.candidates],
            "best_latency_ms": None if best is None else accept.latency_of(best),
        }
    print(json.dumps(found))


def small() -> Any:
    """A space of 64 architectures."""
    return spos("small", depths=(2, 1), channels=(16, 32))


def _metric(record: dict[str, str]) -> Any:
    """A metric in the format of NNI's web page, JSON inside JSON."""
    return json.loads(json.loads(record["data"]))
