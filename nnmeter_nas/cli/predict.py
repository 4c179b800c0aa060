"""``nnmeter-nas predict``: predict the latency of models in ms."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from ..packs.intervals import Interval
from ..predictor import LatencyPredictor
from .arguments import (
    add_device_arguments,
    add_format_arguments,
    add_model_arguments,
    check_format,
    check_models,
    load_predictors,
)
from .commands import set_command
from .messages import note, say_as_nn_meter
from .models import Models
from .outcomes import outcomes
from .results import Record, written
from .runs import note_default_device
from .workers import add_worker_arguments, check_workers

#: The records of one model, one for each device.
Records = Sequence[Record]
#: Most warnings and errors that are shown of models whose records go to a file.
_MESSAGES = 100

COLUMNS = {
    "model": str, "predictor": str, "version": float, "latency_ms": float, "low_ms": float, "high_ms": float,
    "unpredicted_share": float, "extrapolated_share": float, "estimated_share": float,
    "memory_bytes": int, "memory_tflite_bytes": int, "size_bytes": int, "error": str,
}  # fmt: skip
_EPILOG = """\
output:
  one model on one device   its latency in ms: the number alone, so that a script can take it;
                            on a terminal with its 90 % interval, and the names of model and device
  several                   a line each as soon as it is known: ms on each device (on a terminal with its
                            90 % interval), then the model
  lat_pred                  the line that scripts parse, as nn-Meter's command prints it:
                            (nn-Meter) [RESULT] predict latency for NAME: MS ms
  --json, --csv, or -o of   a record a model and device: {columns};
  .json, .csv, .parquet     the measured latency is from low_ms to high_ms for 9 of 10 models;
                            shares are 0 to 1: what is not predicted of the work, the others of the latency;
                            memory is the most that activations take at a time, as onnxruntime and as
                            TensorFlow Lite's own kernels use it, size that of the weights on disk

examples:
  nnmeter-nas predict --predictor cortexA76cpu_tflite21 --onnx mobilenet_v2.onnx
  nnmeter-nas predict models/ --predictor cortexA76cpu_tflite21 adreno640gpu_tflite21
  nnmeter-nas predict --nn-meter-ir resnets.jsonl --predictor all --csv -o latencies.csv
  nnmeter-nas predict models/ --jobs 2 --journal latencies.journal -o latencies.parquet
  nnmeter-nas predict --torchvision resnet18 mobilenet_v2 --input-shape 1 3 192 192 --json
  ms=$(nnmeter-nas predict model.onnx --predictor myriadvpu_openvino2019r2)

A model that fails is named on stderr with the reason, and the others still run; the exit code is then 1. With
-o, stderr shows the first 100 warnings and errors; the file has all of them in its columns.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill in the command."""
    names = list(COLUMNS)
    columns = ", ".join(names[:6]) + ",\n" + 28 * " " + ", ".join(names[6:9])
    columns += ",\n" + 28 * " " + ", ".join(names[9:])
    set_command(parser, run, _EPILOG.format(columns=columns))
    add_model_arguments(parser)
    add_device_arguments(parser)
    parser.add_argument("--strict", action="store_true",
                        help="fail on a model with operators that were not measured, instead of a warning")
    add_format_arguments(parser)
    add_worker_arguments(parser, journal=True)


def run(options: argparse.Namespace) -> int:
    """Predict all models on all devices."""
    check_format(options)
    check_workers(options)
    check_models(options)
    predictors = load_predictors(options)
    models = Models.named_by(options)
    if options.format:
        with written(options, COLUMNS) as write:
            return _told(models, predictors, options, lambda records: list(map(write, records)))
    devices = [predictor.device for predictor in predictors]
    lines: _Lines | _NnMeterLines
    if options.like_nn_meter:
        lines = _NnMeterLines(devices)
    else:
        lines = _Lines(devices, single=len(models) == len(predictors) == 1)
    code = _told(models, predictors, options, lines.write)
    if lines.written:
        note_default_device(options)
    return code


def _told(
    models: Models,
    predictors: Sequence[LatencyPredictor],
    options: argparse.Namespace,
    write: Callable[[Records], object],
) -> int:
    """Predict the models; tell and write the outcome of each, and return the exit code."""
    code, messages = 0, 0
    for outcome in outcomes(models, predictors, options):
        for message in outcome.messages:
            messages += 1
            if options.output is None or messages <= _MESSAGES:
                note(message)
        if any(record["error"] for record in outcome.records):
            code = 1
        write(outcome.records)
    if options.output and messages > _MESSAGES:
        note(f"{messages - _MESSAGES} more warnings and errors; the columns of the file tell them")
    return code


class _Lines:
    """Writes latencies as lines for people: figures first, as their width is known before reading models."""

    def __init__(self, devices: list[str], single: bool) -> None:
        self.written = False
        self._headings = [f"{device} (ms)" for device in devices]
        self._write = self._write_number if single else self._write_row

    def write(self, records: Records) -> None:
        """Write the records of one model, unless it failed on every device."""
        if not all(record["error"] for record in records):
            self._write(records)
            self.written = True

    def _write_number(self, records: Records) -> None:
        [record] = records
        if sys.stdout.isatty():
            interval = _interval(record)
            told = f"{record['latency_ms']:.3f} ms" if interval is None else str(interval)
            print(f"{record['model']}: {told} on {record['predictor']}")
        else:
            print(record["latency_ms"])

    def _write_row(self, records: Records) -> None:
        if not self.written:
            print(*self._headings, "model", sep="  ")
        figures = ["failed" if record["error"] else _figure(record) for record in records]
        aligned = [f.rjust(len(heading)) for f, heading in zip(figures, self._headings, strict=True)]
        print(*aligned, records[0]["model"], sep="  ", flush=True)


class _NnMeterLines:
    """Writes latencies as nn-Meter's command does, which scripts parse: a line for each model and device."""

    def __init__(self, devices: list[str]) -> None:
        self.written = False
        self._places = [f" on {device}" for device in devices] if len(devices) > 1 else [""]

    def write(self, records: Records) -> None:
        """Write the records of one model, unless it failed on every device; a file without its folder."""
        for place, record in zip(self._places, records, strict=True):
            if not record["error"]:
                name = os.path.basename(record["model"])
                say_as_nn_meter(f"[RESULT] predict latency for {name}{place}: {record['latency_ms']} ms")
                self.written = True


def _figure(record: Record) -> str:
    """Latency in ms; on a terminal with its limits, if they are known."""
    interval = _interval(record) if sys.stdout.isatty() else None
    told = f"{record['latency_ms']:.4f}"
    return told if interval is None else f"{told} ({interval.low:.4g} to {interval.high:.4g})"


def _interval(record: Record) -> Interval | None:
    """The latency with its limits, if they are known."""
    if record["low_ms"] is None:
        return None
    return Interval(record["low_ms"], record["latency_ms"], record["high_ms"])
