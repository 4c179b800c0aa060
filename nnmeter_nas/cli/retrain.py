"""``nnmeter-nas retrain``: train an architecture exported by a search, from scratch."""

from __future__ import annotations

import argparse
from pathlib import Path

from .commands import set_command
from .messages import console
from .training import (
    add_task_arguments,
    add_training_arguments,
    check_task,
    make_task,
    print_files,
    weight_settings,
    with_torch,
)

_EPILOG = """\
Give the --dataset and the --size of the search. Interrupted, the same command goes on where it was.

example:
  nnmeter-nas retrain proxylessnas-output/architecture.json --epochs 60
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill in the command."""
    set_command(parser, run, _EPILOG)
    parser.add_argument("exported_arch_path", type=Path, metavar="ARCH",
                        help="JSON file: candidate by label, as `proxylessnas` and NNI export it")
    add_task_arguments(parser)
    add_training_arguments(parser, "retrain-output")


def run(options: argparse.Namespace) -> int:
    """Train an exported architecture, and print its accuracy."""
    check_task(options)
    return with_torch(options, _retrain)


def _retrain(options: argparse.Namespace) -> int:
    from nnmeter_nas.estimators.proxyless import train_found
    from nnmeter_nas.estimators.proxyless_training import WeightSettings

    settings = WeightSettings(**weight_settings(options))
    accuracy, files = train_found(
        make_task(options), options.exported_arch_path, settings, options.output, options.checkpoint_path
    )
    console().print(f"{accuracy:.2%} of the held-out images right")
    return print_files(files)
