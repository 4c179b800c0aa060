"""``nnmeter-nas demo``: search under a latency limit with NNI, in a few minutes."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import load_latency_predictor
from .arguments import DEFAULT_DEVICE, count, positive_float, positive_int
from .commands import set_command
from .search import NEEDS, add_nni_arguments, at_most_half, start

_EPILOG = f"""\
This is `nnmeter-nas search --space spos-small` in small: it trains a dozen networks on scikit-learn's digits
in a few minutes, and replaces the demo that is in DIR. Interrupted, it goes on with: nnmeter-nas search
--resume DIR. It needs: {NEEDS}, with NNI 2.10.1 or 3.0.

examples:
  nnmeter-nas demo
  nnmeter-nas demo --predictor adreno640gpu_tflite21 --threshold 0.5 --trials 30 --output gpu-search
"""
#: Architectures to train before the strategy learns from them, at most.
_START = 6


def add_arguments(demo: argparse.ArgumentParser) -> None:
    """Fill in the command."""
    set_command(demo, run, _EPILOG)
    demo.add_argument("--predictor", default=DEFAULT_DEVICE, metavar="DEVICE",
                      help="applied hardware, see `predictors list` (default: %(default)s)")
    demo.add_argument("--threshold", type=positive_float, metavar="MS",
                      help="latency limit in ms; without it the median of random architectures")
    demo.add_argument("--trials", type=positive_int, default=12, metavar="N",
                      help="architectures to train (default: %(default)s)")
    demo.add_argument("--epochs", type=positive_int, default=3, metavar="N",
                      help="epochs a trial (default: %(default)s)")
    demo.add_argument("--concurrency", type=positive_int, default=2, metavar="N",
                      help="trials at once (default: %(default)s)")
    demo.add_argument("--seed", type=count, default=0, metavar="S",
                      help="of strategy, data split and weights (default: %(default)s)")
    demo.add_argument("--output", type=Path, default=Path("demo-output"), metavar="DIR",
                      help="for results (default: %(default)s)")
    add_nni_arguments(demo)


def run(options: argparse.Namespace) -> int:
    """Search, and print the results."""
    device = load_latency_predictor(options.predictor).device
    settings = {
        "space": "spos-small",
        "strategy": "learned",
        "options": {"start": at_most_half(_START, options.trials)},
        "devices": [device],
        "max_latency": {} if options.threshold is None else {device: options.threshold},
        "trials": options.trials,
        "concurrency": options.concurrency,
        "arguments": {"epochs": options.epochs, "seed": options.seed},
        "engine": options.engine or "py",
        "seed": options.seed,
    }
    return start(settings, options.output, options.port, overwrite=True)
