"""``nnmeter-nas predict``: predict the latency of models in ms."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ..predictor import Explanation
from .arguments import (
    add_device_arguments,
    add_format_arguments,
    add_model_arguments,
    check_format,
    check_models,
    load_predictors,
)
from .commands import set_command
from .messages import say_as_nn_meter
from .models import Model, Models
from .results import written
from .runs import Run, findings, identity, note_default_device

COLUMNS = (
    "model", "predictor", "version", "latency_ms", "low_ms", "high_ms",
    "unpredicted_share", "extrapolated_share", "estimated_share",
    "memory_bytes", "memory_tflite_bytes", "size_bytes", "error",
)  # fmt: skip
_EPILOG = """\
output:
  one model on one device   its latency in ms: the number alone, so that a script can take it;
                            on a terminal with its 90 % interval, and the names of model and device
  several                   a line each as soon as it is known: ms on each device (on a terminal with its
                            90 % interval), then the model
  lat_pred                  the line that scripts parse, as nn-Meter's command prints it:
                            (nn-Meter) [RESULT] predict latency for NAME: MS ms
  --json, --csv             a record a model and device: {columns};
                            the measured latency is from low_ms to high_ms for 9 of 10 models;
                            shares are 0 to 1: what is not predicted of the work, the others of the latency;
                            memory is the most that activations take at a time, as onnxruntime and as
                            TensorFlow Lite's own kernels use it, size that of the weights on disk

examples:
  nnmeter-nas predict --predictor cortexA76cpu_tflite21 --onnx mobilenet_v2.onnx
  nnmeter-nas predict models/ --predictor cortexA76cpu_tflite21 adreno640gpu_tflite21
  nnmeter-nas predict --nn-meter-ir resnets.jsonl --predictor all --csv -o latencies.csv
  nnmeter-nas predict --torchvision resnet18 mobilenet_v2 --input-shape 1 3 192 192 --json
  ms=$(nnmeter-nas predict model.onnx --predictor myriadvpu_openvino2019r2)

A model that fails is named on stderr with the reason, and the others still run; the exit code is then 1.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill in the command."""
    columns = ", ".join(COLUMNS[:6]) + ",\n" + 28 * " " + ", ".join(COLUMNS[6:9])
    columns += ",\n" + 28 * " " + ", ".join(COLUMNS[9:])
    set_command(parser, run, _EPILOG.format(columns=columns))
    add_model_arguments(parser)
    add_device_arguments(parser)
    parser.add_argument("--strict", action="store_true",
                        help="fail on a model with operators that were not measured, instead of a warning")
    add_format_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Predict all models on all devices."""
    check_format(options)
    check_models(options)
    predictors = load_predictors(options)
    models = Models.named_by(options)
    work = Run(models, predictors, options.verbose, warns=True, strict=options.strict)
    if options.format:
        with written(options, COLUMNS) as write:
            for model, results in work:
                for predictor, result in zip(predictors, results, strict=True):
                    write({**identity(model, predictor), **findings(result)})
        return work.exit_code
    devices = [predictor.device for predictor in predictors]
    lines: _Lines | _NnMeterLines
    if options.like_nn_meter:
        lines = _NnMeterLines(devices)
    else:
        lines = _Lines(devices, single=len(models) == len(predictors) == 1)
    for model, results in work:
        lines.write(model, results)
    if lines.written:
        note_default_device(options)
    return work.exit_code


class _Lines:
    """Writes latencies as lines for people: figures first, as their width is known before reading models."""

    def __init__(self, devices: list[str], single: bool) -> None:
        self.written = False
        self._headings = [f"{device} (ms)" for device in devices]
        self._write = self._write_number if single else self._write_row

    def write(self, model: Model, results: list[Explanation | Exception]) -> None:
        """Write one model, unless it failed on every device."""
        found = [None if isinstance(result, Exception) else result for result in results]
        if any(found):
            self._write(model, found)
            self.written = True

    def _write_number(self, model: Model, found: Sequence[Explanation | None]) -> None:
        for result in found:
            if result is not None:
                told = f"{model.name}: {result.title}"
                print(told if sys.stdout.isatty() else result.latency_ms)

    def _write_row(self, model: Model, found: Sequence[Explanation | None]) -> None:
        if not self.written:
            print(*self._headings, "model", sep="  ")
        figures = ["failed" if result is None else _figure(result) for result in found]
        aligned = [f.rjust(len(heading)) for f, heading in zip(figures, self._headings, strict=True)]
        print(*aligned, model.name, sep="  ", flush=True)


class _NnMeterLines:
    """Writes latencies as nn-Meter's command does, which scripts parse: a line for each model and device."""

    def __init__(self, devices: list[str]) -> None:
        self.written = False
        self._places = [f" on {device}" for device in devices] if len(devices) > 1 else [""]

    def write(self, model: Model, results: list[Explanation | Exception]) -> None:
        """Write one model, unless it failed on every device. A file's name goes without its folder."""
        for place, result in zip(self._places, results, strict=True):
            if not isinstance(result, Exception):
                name = os.path.basename(model.name)
                say_as_nn_meter(f"[RESULT] predict latency for {name}{place}: {result.latency_ms} ms")
                self.written = True


def _figure(result: Explanation) -> str:
    """Latency in ms; on a terminal with its limits, if they are known."""
    interval = result.interval() if sys.stdout.isatty() else None
    told = f"{result.latency_ms:.4f}"
    return told if interval is None else f"{told} ({interval.low:.4g} to {interval.high:.4g})"
