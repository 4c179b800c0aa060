"""``nnmeter-nas demo``: a search with NNI that keeps within a latency limit."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .. import load_latency_predictor
from .arguments import DEFAULT_DEVICE, add_command, port, positive_float, positive_int
from .messages import fail

_EPILOG = """\
Trains a dozen small networks on scikit-learn's digits in a few minutes, and saves the trials, the best
architecture and a Pareto plot. It needs: pip install 'nnmeter_nas[search]' 'nni==2.10.1'

examples:
  nnmeter-nas demo
  nnmeter-nas demo --predictor adreno640gpu_tflite21 --threshold 1.5 --trials 30 --output gpu-search
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    summary = "search SPOS networks that meet a latency limit, and train them with NNI"
    demo = add_command(commands, "demo", run, summary, _EPILOG)
    demo.add_argument("--predictor", default=DEFAULT_DEVICE, metavar="DEVICE",
                      help="applied hardware, see `predictors list` (default: %(default)s)")
    demo.add_argument("--threshold", type=positive_float, metavar="MS",
                      help="latency limit in ms; without it the median of random candidates")
    demo.add_argument("--trials", type=positive_int, default=12, metavar="N",
                      help="candidates to train (default: %(default)s)")
    demo.add_argument("--epochs", type=positive_int, default=3, metavar="N",
                      help="epochs a candidate (default: %(default)s)")
    demo.add_argument("--concurrency", type=positive_int, default=2, metavar="N",
                      help="trials at once (default: %(default)s)")
    demo.add_argument("--engine", choices=["py", "graph"], default="py",
                      help="NNI's execution engine (default: %(default)s)")
    demo.add_argument("--port", type=port, metavar="P",
                      help="port of NNI's web page on 127.0.0.1; another is taken if it is in use")
    demo.add_argument("--seed", type=int, default=0, metavar="S",
                      help="of candidates, split and weights (default: %(default)s)")
    demo.add_argument("--patience", type=positive_int, default=300, metavar="N",
                      help="candidates over the limit in a row after which it counts as out of reach "
                      "(default: %(default)s)")
    demo.add_argument("--output", type=Path, default=Path("demo-output"), metavar="DIR",
                      help="for results (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Run the search and print what it found."""
    predictor = load_latency_predictor(options.predictor)
    try:
        from ..demo import run_demo  # late: a wrong device shall not cost the start of torch and NNI

        run_demo(predictor, options.output, options.threshold, options.trials, options.epochs,
                 options.concurrency, options.engine, options.port, options.seed, options.patience)
    except ModuleNotFoundError as error:
        return fail(f"{error}; `demo` needs: pip install 'nnmeter_nas[search]' 'nni==2.10.1'")
    return 0
