"""The first measure of a space of NNI's hub, whose networks are made one by one, with nothing in the cache.

Each NNI line runs under its own interpreter, ``python -m nnmeter_nas.benchmarks.speed.spaces``, which
:func:`space_figures` starts.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from nnmeter_nas import load_latency_predictor
from nnmeter_nas.costs.measures import latencies
from nnmeter_nas.files import HOME
from nnmeter_nas.nni.line import NAS, nni_line
from nnmeter_nas.supernet.named import load_space, make_space

from .figures import Figure, Result, Unmeasured, measured, measured_under, save

_TOPIC = "spaces"
#: A space with choices of values, depths and layers; of 10 to the power of 30 architectures.
_SPACE = "hub-mobilenetv3"
_LIMIT_S = 12.0


def space_figures(device: str, lines: Sequence[tuple[str, Path]]) -> Iterator[Result]:
    """Time the first latency measure of the hub's MobileNetV3 under each NNI line, and its LatencyProfiler.

    Args:
        device: applied hardware.
        lines: NNI lines, and the interpreter of an environment with each.

    Raises:
        MeasurementError: nothing could be measured; the message says why.
    """
    for line, python in lines:
        if not python.is_file():
            reason = f"takes an environment with NNI {line}, and {python} is none"
            yield Unmeasured(f"first latency measure of {_SPACE}, NNI {line}", reason)
            continue
        yield from measured_under(python, __name__, [device], _TOPIC)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure under this interpreter's NNI line and save the figures."""
    parser = argparse.ArgumentParser(description=__doc__, prog=f"python -m {__name__}")
    parser.add_argument("device", help="applied hardware")
    parser.add_argument("output", type=Path, help="folder of the results")
    options = parser.parse_args(arguments)
    save(measure_space(_SPACE, options.device), options.output, _TOPIC, {})  # the caller adds the machine


def measure_space(name: str, device: str, repeats: int = 3) -> Iterator[Figure]:
    """Time the first measure of a loaded space, and of its profiler under NNI 3.0.

    Args:
        name: name of the space.
        device: applied hardware.
        repeats: number of times, each with an empty cache.
    """
    line, predictor = nni_line(), load_latency_predictor(device)
    space = load_space(name)
    made: list[int] = []
    first = partial(_uncached, lambda: latencies(space, [predictor], made.append))
    ours = measured(first, repeats, warm=False)
    yield Figure(
        f"first latency measure of {name}, NNI {line}", "s", ours, limit=_LIMIT_S,
        note=f"makes {max(made)} networks",
    )  # fmt: skip
    if line == NAS:
        profiler = import_module("nnmeter_nas.estimators.latency_profiler").LatencyProfiler
        module, shape = make_space(name), space.input_shape
        ours = measured(lambda: profiler(module, shape, predictor), repeats, warm=False)
        yield Figure(f"LatencyProfiler of {name}, NNI {line}", "s", ours, limit=_LIMIT_S)


def _uncached(function: Callable[[], Any]) -> None:
    """Call ``function`` with a user folder without a cache."""
    with tempfile.TemporaryDirectory() as home, patch.dict(os.environ, {HOME: home}):
        function()


if __name__ == "__main__":
    main()
