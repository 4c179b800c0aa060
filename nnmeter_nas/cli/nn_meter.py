"""The command ``nn-meter``: this package's commands, with output in nn-Meter's form.

It gives way to nn-Meter where that is installed, except in programs that run on this package, as
``python -m nnmeter_nas.compat`` starts them.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution

from ..compat import is_installed
from . import main as run
from .nn_meter_builder import VERBOSE, takes
from .nn_meter_builder import main as run_builder


def main() -> int:
    """Run the command and return its exit code."""
    words = sys.argv[1:]
    if _has_nn_meter() and not is_installed():
        import_module("nn_meter.utils.nn_meter_cli.interface").nn_meter_cli()
        return 0
    first = next((word for word in words if word not in VERBOSE), "")
    if takes(first):
        return run_builder(words)
    return run(words, prog="nn-meter")


def _has_nn_meter() -> bool:
    """Whether nn-Meter itself is installed."""
    try:
        distribution("nn-meter")
    except PackageNotFoundError:
        return False
    return True
