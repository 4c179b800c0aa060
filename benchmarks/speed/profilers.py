"""Profiles of NNI 3.0's ProxylessNAS space: our LatencyProfiler, and NNI's NnMeterProfiler with nn-Meter 2.0.

Both run under NNI 3.0's own interpreter, ``python -m nnmeter_nas.benchmarks.speed.profilers``, which
:func:`profiler_figures` starts.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from nnmeter_nas import LatencyPredictor

from ..parity.comparison import import_forests
from ..parity.reference import forests
from .figures import Figure, Result, Sample, Unmeasured, measured, measured_under, save
from .nnmeter import TOLERANCE, DisagreementError, import_nn_meter

_TOPIC = "profilers"
_SHAPE = (1, 3, 224, 224)
#: Number of samples whose profiles are compared.
_SAMPLES = 10


def profiler_figures(folder: Path, device: str, environment: Path, python: Path) -> Iterator[Result]:
    """Time the profiles of NNI hub's ProxylessNAS space, by our profiler and by NNI's.

    Args:
        folder: folder of the predictor in nn-Meter's format.
        device: applied hardware of the predictor.
        environment: virtual environment of nn-Meter.
        python: interpreter of an environment with NNI 3.0.

    Raises:
        MeasurementError: nothing could be measured; the message says why.
    """
    if not python.is_file():
        yield Unmeasured(
            "profile of ProxylessNAS, NNI 3.0", f"takes an environment with NNI 3.0, and {python} is none"
        )
        return
    arguments: list[str | Path] = [device, folder.absolute(), environment.absolute()]
    yield from measured_under(python, __name__, arguments, _TOPIC)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the profilers under NNI 3.0 and save their figures."""
    parser = argparse.ArgumentParser(description=__doc__, prog=f"python -m {__name__}")
    parser.add_argument("device", help="applied hardware")
    parser.add_argument("folder", type=Path, help="of the predictor in nn-Meter's form")
    parser.add_argument("environment", type=Path, help="virtual environment of nn-Meter 2.0")
    parser.add_argument("output", type=Path, help="folder of the results")
    options = parser.parse_args(arguments)
    nn_meter = import_nn_meter(options.environment)
    space = import_module("nni.nas.hub.pytorch").ProxylessNAS()
    with tempfile.TemporaryDirectory() as home:
        pack = import_forests({options.device: options.folder}, Path(home))[0].pack
        rules, trees = str(options.folder / "fusion_rules.json"), forests(options.folder)
        figures = measure_profilers(
            space, lambda: LatencyPredictor(pack), lambda: nn_meter.nnMeterPredictor(trees, rules)
        )
        save(figures, options.output, _TOPIC, {})  # the calling process describes the machine


def measure_profilers(
    space: Any, ours: Callable[[], LatencyPredictor], theirs: Callable[[], Any], repeats: int = 5
) -> Iterator[Figure]:
    """Time our profile against NNI's, which uses torch's current exporter and its former one.

    Args:
        space: space made of the blocks of NNI hub's ProxylessNAS, with the input (1, 3, 224, 224).
        ours: makes a fresh predictor of ours.
        theirs: makes the same predictor in nn-Meter's format.
        repeats: number of our repeats.

    Raises:
        DisagreementError: the profiles differ by more than the part that nn-Meter leaves out of every sample.
    """
    profilers = import_module("nnmeter_nas.estimators.latency_profiler")
    profiler = profilers.LatencyProfiler(space, _SHAPE, ours())
    taken = measured(lambda: profilers.LatencyProfiler(space, _SHAPE, ours()), repeats)
    compared = samples(space, _SAMPLES)
    note = "same forests and rules; nn-Meter leaves out the pool and the classifier"
    rival, made = _nni_profile(space, theirs, former=False, repeats=1)
    check_profiles(profiler, made, compared)
    yield Figure(
        f"profile of {type(space).__name__}, NNI 3.0", "s", ours=taken, rival=rival,
        rival_name="NNI's NnMeterProfiler with nn-Meter 2.0", at_least=50, note=f"{note}; NNI run once",
    )  # fmt: skip
    rival, made = _nni_profile(space, theirs, former=True, repeats=3)
    check_profiles(profiler, made, compared)
    yield Figure(
        "the same, beside torch's former exporter", "s", ours=taken, rival=rival,
        rival_name="NNI's NnMeterProfiler, exports by TorchScript",
        note=f"{note}; torch has deprecated TorchScript, whose constants are folded for nn-Meter",
    )  # fmt: skip


def _nni_profile(space: Any, predictor: Callable[[], Any], former: bool, repeats: int) -> tuple[Sample, Any]:
    """Time NNI's profiler on a space; return the times and the profiler.

    Each block is a leaf, 132 in ProxylessNAS, so operators that run in one kernel are exported together.

    Args:
        space: space made of the blocks of NNI hub's ProxylessNAS, with the input (1, 3, 224, 224).
        predictor: makes a fresh predictor of nn-Meter.
        former: see :func:`patched_profiler`.
        repeats: number of times the profiler is made.
    """
    blocks = import_module("nni.nas.hub.pytorch.proxylessnas")
    leaves = (blocks.ConvBNReLU, blocks.DepthwiseSeparableConv, blocks.InvertedResidual)
    made: list[Any] = []
    with patched_profiler(former) as module:
        module.to_onnx(blocks.ConvBNReLU(3, 8), torch.zeros(1, 3, 8, 8))  # the first export takes longer
        image = torch.zeros(_SHAPE)
        profile = partial(module.NnMeterProfiler, space, image, custom_leaf_types=leaves)
        taken = measured(lambda: made.append(profile(predictor=predictor())), repeats, warm=False)
    return taken, made[-1]


@contextlib.contextmanager
def patched_profiler(former: bool = False) -> Iterator[ModuleType]:
    """Yield the module of NNI's profiler while its ``to_onnx`` is patched.

    Two patches suffice: a file in memory, because torch no longer writes to open files; and an empty module
    onnxruntime, because NNI imports it without using it and our environments do not have it.

    Args:
        former: export with TorchScript, torch's default when NNI was written, still available on request. It
            leaves constants as nodes. onnxsim does not fold them and nn-Meter fails on them, so they are
            folded here.
    """
    module = import_module("nni.nas.profiler.pytorch.nn_meter")
    onnxsim = import_module("onnxsim")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with contextlib.ExitStack() as patches:
        patches.enter_context(patch.dict(sys.modules, onnxruntime=ModuleType("onnxruntime")))
        patches.enter_context(patch.object(module, "tempfile", SimpleNamespace(TemporaryFile=io.BytesIO)))
        patches.enter_context(contextlib.redirect_stdout(io.StringIO()))  # the exporter prints each step
        if former:
            patches.enter_context(patch("torch.onnx.export", partial(torch.onnx.export, dynamo=False)))
            patches.enter_context(patch("onnxsim.simplify", partial(_simplified, onnxsim.simplify)))
        yield module


def _simplified(simplify: Callable[[Any], tuple[Any, bool]], model: Any) -> tuple[Any, bool]:
    """Simplify an ONNX model with ``simplify``, and move its constants to the initializers."""
    simple, same = simplify(model)
    for node in [node for node in simple.graph.node if node.op_type == "Constant"]:
        tensor = simple.graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        simple.graph.node.remove(node)
    return simple, same


def samples(space: Any, count: int) -> list[dict[str, Any]]:
    """Draw random samples of a space."""
    found: list[dict[str, Any]] = [{} for _ in range(count)]
    with torch.device("meta"):
        for sample in found:
            space.random(sample)
    return found


def check_profiles(ours: Any, theirs: Any, compared: Sequence[Mapping[str, Any]]) -> None:
    """Raise a DisagreementError unless two profilers differ by the same number of ms in all samples.

    nn-Meter prices these parts alone: it takes the global pool for a mean, and finds no kernel in the
    classifier. Both take 0 ms there.
    """
    more = [ours.profile(sample) - theirs.profile(sample) for sample in compared]
    if min(more) < -TOLERANCE or any(abs(a - b) > TOLERANCE for a, b in itertools.pairwise(more)):
        raise DisagreementError(f"nnmeter_nas profiles samples by {more} ms more than nn-Meter does")


if __name__ == "__main__":
    main()
