"""``nnmeter-nas get_ir``: convert models to nn-Meter IR."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..files import write_bytes
from ..readers.nnmeter_ir.writer import to_nnmeter_ir
from .arguments import add_model_arguments, check_models
from .commands import set_command
from .messages import say_as_nn_meter
from .models import Model, Models
from .runs import report

_EPILOG = """\
nn-Meter 2.0 and nnmeter-nas both read the file. Without -o it lies beside the model as <model>_onnx_ir.json,
<model>_pb_ir.json or <model>_ir.json, for torchvision as <name>_torch_ir.json in the current folder.

examples:
  nnmeter-nas get_ir --onnx model.onnx
  nnmeter-nas get_ir --tensorflow frozen.pb -o model.json
  nnmeter-nas get_ir --torchvision resnet18
"""
_ENDINGS = {"onnx": "_onnx_ir.json", "pb": "_pb_ir.json", "nnmeter-ir": "_ir.json", "torch": "_torch_ir.json"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill in the command."""
    set_command(parser, run, _EPILOG)
    add_model_arguments(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE",
                        help="where to write the IR of one model; .json is added if it has no suffix")


def run(options: argparse.Namespace) -> int:
    """Convert all models."""
    check_models(options)
    models = Models.named_by(options)
    if options.output and len(models) != 1:
        options.parser.error(f"argument -o/--output: is for one model, and {len(models)} are given")
    exit_code = 0
    for model in models:
        try:
            ir = to_nnmeter_ir(model.read())
            path = _path(model, options.output)
            write_bytes(path, f"{json.dumps(ir, indent=4)}\n".encode())
        except Exception as error:  # a bad model, or a bug of ours, must not stop the others
            exit_code = report(model, error, options.verbose)
        else:
            if options.like_nn_meter:
                say_as_nn_meter(f"The nn-meter ir graph has been saved. Saved path: {path.absolute()}")
            else:
                print(f"The nn-Meter IR of {model.name} is saved as {path}")
    return exit_code


def _path(model: Model, output: Path | None) -> Path:
    """Return the path for the IR of ``model``."""
    if output is not None:
        return output if output.suffix else output.with_suffix(".json")
    if model.file is None:
        return Path(f"{model.name}{_ENDINGS[model.kind]}")
    # A model from a file with one graph per line is named <file>:<model>.
    stem = model.file.stem + model.name[len(str(model.file)) :].replace(":", "_")
    return model.file.with_name(stem + _ENDINGS[model.kind])
