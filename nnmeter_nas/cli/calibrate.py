"""``nnmeter-nas calibrate``: make a predictor of the user's device from a few models timed on it."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from rich.table import Table

from ..calibrate import FEWEST, Fit, fit_calibration, store, with_calibration
from ..errors import CalibrationError
from ..predictor import load_latency_predictor
from ..progress import progress
from .arguments import DEFAULT_DEVICE, add_input_shape
from .commands import set_command
from .messages import console, note
from .models import input_shape_of

_COLUMNS = ("model", "ms")
_EPILOG = f"""\
CSV is a file with the columns model (a model file; a relative path starts at the file's own folder) and ms
(its latency on your device at batch 1). It takes {FEWEST} models at least; ten or more, like those to be
predicted, are better. Each kernel type gets a scale and a launch cost, and each run an offset; the fewer the
models, the less these change. The table shows the error of the original, and that of the new predictor on
each model when it is fitted to the others. If that is not better, nothing is stored.

example:
  nnmeter-nas calibrate --predictor adreno640gpu_tflite21 --measured measured.csv --name my-phone
  nnmeter-nas predict --predictor my-phone --onnx mobilenet_v2.onnx
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill in the command."""
    set_command(parser, run, _EPILOG)
    parser.add_argument("--predictor", default=DEFAULT_DEVICE, metavar="DEVICE",
                        help=f"predictor of a similar device to start from (default: {DEFAULT_DEVICE})")
    parser.add_argument("--predictor-version", type=float, metavar="V",
                        help="version of that predictor (default: the newest)")
    parser.add_argument("--measured", type=Path, required=True, metavar="CSV",
                        help="models and their latency")
    parser.add_argument("--name", required=True, metavar="DEVICE", help="name of your device")
    add_input_shape(parser, "shape of the input of all models, such as 1 3 224 224, if they leave it open")


def run(options: argparse.Namespace) -> int:
    """Fit, show the errors, and store the predictor if it is better."""
    original = load_latency_predictor(options.predictor, options.predictor_version)
    rows = _rows(options.measured)
    shape = input_shape_of(options)
    with progress(len(rows)) as advance:
        fit = fit_calibration(original, _advancing(rows, advance), input_shape=shape)
    console().print(_table(fit, [path for path, _ in rows], original.device))
    if not fit.helps:
        raise CalibrationError(
            "calibration does not help, so nothing is stored: measure more models, more like those that you "
            "want to predict"
        )
    mine = with_calibration(original, fit, options.name)
    folder = store(mine)
    print(f"{mine.device} {mine.version} is stored in {folder}")
    note(f"use it with: nnmeter-nas predict MODEL --predictor {mine.device}")
    return 0


def _rows(path: Path) -> list[tuple[Path, float]]:
    """Read the models and their latency in ms.

    Raises:
        CalibrationError: a column is missing, or a row lacks a model or a number.
    """
    try:
        lines = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines(), skipinitialspace=True))
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{path} is no CSV file: {error}") from error
    if not lines or not set(_COLUMNS) <= set(lines[0]):
        raise CalibrationError(f"{path} needs a header and rows with the columns {' and '.join(_COLUMNS)}")
    rows = []
    for number, line in enumerate(lines, 2):
        try:
            rows.append((path.parent / line["model"], float(line["ms"])))
        except (TypeError, ValueError) as error:
            raise CalibrationError(
                f"{path}, line {number}: {line['model']!r} and {line['ms']!r} are no model and its ms"
            ) from error
    return rows


def _advancing(
    rows: list[tuple[Path, float]], advance: Callable[[int], None]
) -> Iterator[tuple[Path, float]]:
    """Yield the rows, and call ``advance`` after each."""
    for row in rows:
        yield row
        advance(1)


def _table(fit: Fit, paths: list[Path], device: str) -> Table:
    """Make a table of the models: measured latency, and that predicted before and after."""
    table = Table("model", "measured ms", f"{device} ms", "error", "left out ms", "error")
    for column in table.columns[1:]:
        column.justify = "right"
    for path, ms, before, after in zip(paths, fit.measured, fit.before, fit.after, strict=True):
        pairs = ((f"{found:.3f}", f"{found / ms - 1:+.1%}") for found in (before, after))
        table.add_row(path.name, f"{ms:.3f}", *chain.from_iterable(pairs))
    found = fit.accuracy()
    for text, key in (("mean error (%)", "mape"), ("within ±10 % (%)", "within_10")):
        table.add_row(text, "", "", f"{found['before'][key]:.1f}", "", f"{found['after'][key]:.1f}")
    return table
