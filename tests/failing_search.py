"""A real NNI 2.10.1 search in which some trials fail, for tests to run in a process of its own.

Run as ``python -c "import failing_search; failing_search.main()" FOLDER`` with this folder on the path;
trials import this module too. Prints the trials as JSON.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nni
from nni.retiarii.evaluator import FunctionalEvaluator
from nni.retiarii.strategy import Random
from work import WorkPredictor

from nnmeter_nas.search_spaces import spos
from nnmeter_nas.strategies import LatencyFilter
from nnmeter_nas.strategies.search import run_search


def evaluate(build: Callable[[], Any]) -> None:
    """A trial: the larger of the candidates fail, the others report a fixed accuracy."""
    if sum(p.numel() for p in build().parameters()) > 60_000:
        raise MemoryError("this candidate is too large to train")
    nni.report_final_result(0.5)


def main() -> None:
    """Search without a limit worth the name; logs go into the folder named by the first argument."""
    anything = LatencyFilter(1e6, WorkPredictor())
    trials, note = run_search(
        functools.partial(spos, "small"), Random(model_filter=anything), FunctionalEvaluator(evaluate),
        anything.latency_of, logs=Path(sys.argv[1]), trials=3, concurrency=3, seed=1,
    )
    print(json.dumps({"trials": [dataclasses.asdict(trial) for trial in trials], "note": note}))
