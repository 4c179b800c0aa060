"""``nnmeter-nas retrain``: train an architecture exported by a search, from scratch."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import load_latency_predictor
from .commands import set_command
from .messages import console
from .training import (
    add_hardware_argument,
    add_task_arguments,
    add_training_arguments,
    check_task,
    make_task,
    print_files,
    weight_settings,
    with_torch,
)

_EPILOG = """\
Give the --dataset, the --size and the device of the search. Interrupted, the same command goes on where it
was.

example:
  nnmeter-nas retrain proxylessnas-output/architecture.json --epochs 60
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill in the command."""
    set_command(parser, run, _EPILOG)
    parser.add_argument("exported_arch_path", type=Path, metavar="ARCH",
                        help="JSON file: candidate by label, as `proxylessnas` and NNI export it")
    add_hardware_argument(parser, "device to predict the network's latency on")
    add_task_arguments(parser)
    add_training_arguments(parser, "retrain-output")


def run(options: argparse.Namespace) -> int:
    """Train an exported architecture, and print its accuracy and its latency."""
    check_task(options)
    if not options.exported_arch_path.is_file():
        options.parser.error(f"{options.exported_arch_path} is no file of an exported architecture")
    load_latency_predictor(options.applied_hardware)  # fail on a wrong name before loading torch and NNI
    return with_torch(options, _retrain)


def _retrain(options: argparse.Namespace) -> int:
    from nnmeter_nas.estimators.proxyless import train_found
    from nnmeter_nas.estimators.proxyless_training import WeightSettings

    settings = WeightSettings(**weight_settings(options))
    found = train_found(
        make_task(options), options.exported_arch_path, options.applied_hardware, settings, options.output,
        options.checkpoint_path,
    )  # fmt: skip
    console().print(
        f"{found.accuracy:.2%} of the held-out images right, {found.latency_ms:.4g} ms on {found.device}"
    )
    return print_files(found.files)
