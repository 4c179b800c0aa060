"""``nnmeter-nas explain``: where the latency of a model goes, kernel by kernel."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ..files import write_bytes
from ..predictor import MARKS, Explanation
from .arguments import (
    add_device_arguments,
    add_format_arguments,
    add_model_arguments,
    check_format,
    check_models,
    load_predictors,
    png,
    positive_int,
)
from .commands import set_command
from .messages import console, note
from .models import Model, Models
from .plots import kernels_plot
from .results import written
from .runs import Run, findings, identity, memory_and_size, note_default_device

COLUMNS = {
    "model": str, "predictor": str, "version": float, "kernel": str, "type": str, "input": str, "output": str,
    "ms": float, "share": float, "extrapolated": bool, "estimated": bool,
    "memory_bytes": int, "memory_tflite_bytes": int, "size_bytes": int, "error": str,
}  # fmt: skip
_EPILOG = """\
Kernels come in the order in which they run, with --top the costliest first. A kernel marked * lies outside
the range measured on the device; one marked ~ is of a type that was never measured there, and estimated.

--json, --csv, or -o of .json, .csv or .parquet write a row a kernel, and --json the model around them. In a
kernel's row, memory is what activations take while it runs, as onnxruntime and as TensorFlow Lite's own
kernels use it, and size that of its weights: the largest and the sum are those of the model.

examples:
  nnmeter-nas explain model.onnx --predictor adreno640gpu_tflite21
  nnmeter-nas explain model.onnx --predictor all --top 10 --plot kernels.png
  nnmeter-nas explain --tensorflow frozen.pb --csv -o kernels.csv
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill in the command."""
    set_command(parser, run, _EPILOG)
    add_model_arguments(parser)
    add_device_arguments(parser)
    add_format_arguments(parser)
    parser.add_argument("--top", type=positive_int, metavar="N", help="only the N costliest kernels")
    parser.add_argument("--plot", type=png, metavar="FILE.png",
                        help="a bar chart of the costliest kernels of one model, a panel a device")


def run(options: argparse.Namespace) -> int:
    """Explain all models on all devices."""
    check_format(options)
    check_models(options)
    predictors = load_predictors(options)
    models = Models.named_by(options)
    if options.plot and len(models) != 1:
        options.parser.error(f"argument --plot: draws one model, and {len(models)} are given")
    work = Run(models, predictors, options.verbose)
    if options.format:
        with written(options, COLUMNS, parts="kernels") as write:
            for model, results in work:
                for predictor, result in zip(predictors, results, strict=True):
                    kernels = [] if isinstance(result, Exception) else _kernels(result, options.top)
                    write({**identity(model, predictor), **memory_and_size(result),
                           **findings(result), "kernels": kernels})  # fmt: skip
                _plot(options, model, results)
        return work.exit_code
    for model, results in work:
        _print(model, results, options.top)
        _plot(options, model, results)
    if work.exit_code == 0:
        note_default_device(options)
    return work.exit_code


def _print(model: Model, results: list[Explanation | Exception], top: int | None) -> None:
    """Print a table for each device."""
    out = console()
    for result in results:
        if not isinstance(result, Exception):
            out.print(Text(model.name, style="bold"))
            if top is None:
                out.print(result)
            else:
                out.print(_top_table(result, top), *result.remarks(), sep="\n")


def _plot(options: argparse.Namespace, model: Model, results: list[Explanation | Exception]) -> None:
    """Write the chart for ``--plot``, if there is anything to draw."""
    explained = [result for result in results if not isinstance(result, Exception)]
    if options.plot and explained:
        write_bytes(options.plot, kernels_plot(explained, Path(model.name).name, options.top))
        note(f"saved {options.plot}")


def _kernels(found: Explanation, top: int | None) -> list[dict[str, Any]]:
    """Return a record for each kernel in running order, or for the ``top`` costliest kernels."""
    rows = []
    for name, data in found.kernel_graph.nodes(data=True):
        kernel, ms = data["kernel"], data["latency_ms"]
        rows.append({
            "kernel": name,
            "type": kernel.type,
            "operators": kernel.members,
            "input": " ".join("x".join(map(str, shape)) for shape in kernel.in_shapes),
            "output": " ".join("x".join(map(str, shape)) for shape in kernel.out_shapes),
            "ms": ms,
            "share": None if ms is None else ms / found.latency_ms,
            "extrapolated": data["basis"] == "extrapolated",
            "estimated": data["basis"] == "estimated",
            **memory_and_size(found, kernel),
        })  # fmt: skip
    return rows if top is None else sorted(rows, key=lambda row: -(row["ms"] or 0.0))[:top]


def _top_table(found: Explanation, top: int) -> Table:
    """Make a table of the costliest kernels, with one line for all others."""
    rows = _kernels(found, top)
    table = Table(title=found.title, title_justify="left")
    for column in ("kernel", "type", "input", "output"):
        table.add_column(column, overflow="fold")
    table.add_column("ms", justify="right")
    table.add_column("share", justify="right")
    for row in rows:
        mark = MARKS[found.kernel_graph.nodes[row["kernel"]]["basis"]]
        predicted = row["ms"] is not None
        figures = (f"{row['ms']:.4f}{mark}", f"{row['share']:.1%}") if predicted else ("not predicted", "")
        table.add_row(*(str(row[key]) for key in ("kernel", "type", "input", "output")), *figures)
    rest = len(found.kernel_graph) - len(rows)
    if rest > 0 and found.latency_ms:
        ms = found.latency_ms - sum(row["ms"] or 0.0 for row in rows)
        table.add_row(f"{rest} more", "", "", "", f"{ms:.4f}", f"{ms / found.latency_ms:.1%}", style="dim")
    return table
