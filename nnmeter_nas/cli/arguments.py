"""Arguments that several commands share, and the checks of their values."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import UnknownDeviceError
from ..packs import pack_folders
from ..predictor import LatencyPredictor, load_latency_predictor
from .models import FOLDER_SUFFIXES, suffix_of

DEFAULT_DEVICE = "cortexA76cpu_tflite21"
#: Value of ``--predictor`` that selects every device.
ALL = "all"
#: Suffix of an output file -> format of results.
_FORMATS = {".json": "json", ".csv": "csv", ".parquet": "parquet"}


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name the models and their formats."""
    models = parser.add_argument_group("models", "files, or folders to search for files of the format")
    models.add_argument("model", type=Path, nargs="*", metavar="MODEL",
                        help="a file whose suffix tells its format (.onnx, .pb, .json, .jsonl), or a folder")
    models.add_argument("--onnx", type=Path, nargs="+", action="extend", metavar="PATH", help="ONNX models")
    models.add_argument("--tensorflow", type=Path, nargs="+", action="extend", metavar="PATH",
                        help="frozen TensorFlow graphs (.pb)")
    models.add_argument("--nn-meter-ir", type=Path, nargs="+", action="extend", metavar="PATH",
                        help="nn-Meter IR: one graph (.json), or one a line as in the bench dataset (.jsonl)")
    models.add_argument("--torchvision", nargs="+", action="extend", metavar="NAME",
                        help="models of torchvision other than detectors, such as resnet18; nn-Meter's short "
                        "names work too")
    add_input_shape(models, "shape of the input, NCHW with batch 1, such as 1 3 224 224, where the model "
                            "leaves it open or another is wanted")
    models.add_argument("--allow-quantized", action="store_true",
                        help="take a quantised model as the float network that it stands for")


def add_input_shape(parser: argparse._ActionsContainer, what: str) -> None:
    """Add ``--input-shape``, which ``models.input_shape_of`` reads; ``what`` is its help."""
    parser.add_argument("--input-shape", type=size, nargs="+", action="append", metavar="SIZE",
                        help=f"{what}; once for each input, in their order")


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name the devices to predict on."""
    devices = parser.add_argument_group("devices")
    devices.add_argument("--predictor", nargs="+", action="extend", metavar="DEVICE",
                         help="applied hardware, one or several, see `predictors list`; `all` for every "
                         f"device (default: {DEFAULT_DEVICE})")
    devices.add_argument("--predictor-version", type=float, metavar="V",
                         help="version of the predictor pack (default: the newest)")


def add_format_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the format and the destination of results."""
    output = parser.add_argument_group("output")
    formats = output.add_mutually_exclusive_group()
    formats.add_argument("--json", dest="format", action="store_const", const="json", help="a JSON array")
    formats.add_argument("--csv", dest="format", action="store_const", const="csv", help="CSV with a header")
    output.add_argument("-o", "--output", type=new_file, metavar="FILE",
                        help="write to FILE, whole or not at all; its suffix tells the format: "
                        f"{', '.join(_FORMATS)}")


def check_format(options: argparse.Namespace) -> None:
    """Choose the format by the suffix of ``--output``.

    Report wrong usage if the suffix does not tell it, or tells another than a flag does.
    """
    if options.output is None:
        return
    suffix = options.output.suffix.lower()
    if options.format and suffix in _FORMATS and _FORMATS[suffix] != options.format:
        options.parser.error(
            f"argument --{options.format}: not allowed with -o {options.output}, which is to be "
            f"{_FORMATS[suffix]}; leave --{options.format} out, or let the name end in .{options.format}"
        )
    options.format = options.format or _FORMATS.get(suffix)
    if options.format is None:
        options.parser.error(
            f"argument -o/--output: cannot tell the format of {options.output}; add --json or --csv, or end "
            f"its name in {', '.join(_FORMATS)}"
        )


def check_models(options: argparse.Namespace) -> None:
    """Take back models that ``--predictor`` swallowed; report wrong usage if there are no models."""
    if getattr(options, "predictor", None):
        known = {name.lower() for name, _ in pack_folders()} | {ALL}
        swallowed = [name for name in options.predictor if name.lower() not in known and _is_model(name)]
        options.predictor = [name for name in options.predictor if name not in swallowed]
        if not options.predictor:
            options.parser.error(f"argument --predictor: names no device, only {', '.join(swallowed)}")
        options.model += map(Path, swallowed)
    flags = ("onnx", "tensorflow", "nn_meter_ir", "torchvision")
    if not options.model and not any(getattr(options, flag) for flag in flags):
        options.parser.error(
            "the following arguments are required: MODEL, or one of --onnx, --tensorflow, --nn-meter-ir and "
            "--torchvision"
        )


def _is_model(name: str) -> bool:
    return suffix_of(Path(name)) in FOLDER_SUFFIXES or Path(name).exists()


def load_predictors(options: argparse.Namespace) -> list[LatencyPredictor]:
    """Load the predictors that ``--predictor`` and ``--predictor-version`` name, each once.

    Raises:
        UnknownDeviceError: no predictor has that name or version.
        PackError: a pack is damaged.
    """
    names, version = options.predictor or [DEFAULT_DEVICE], options.predictor_version
    if ALL in (name.lower() for name in names):
        names = [name for name, its_version in pack_folders() if version in (None, its_version)]
        if not names:
            raise UnknownDeviceError(f"no predictor has version {version}; see `nnmeter-nas predictors list`")
    loaded = [load_latency_predictor(name, version) for name in names]
    return list({predictor.device: predictor for predictor in loaded}.values())


def new_file(text: str) -> Path:
    """Parse the path of a file to write."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; name a file in it")
    return path


def png(text: str) -> Path:
    """Parse the path of a chart."""
    path = new_file(text)
    if path.suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"{path} does not end in .png")
    return path


def size(text: str) -> int:
    """Parse the size of a dimension."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size; give sizes such as 1 3 224 224, and models before --input-shape"
        )
    return value


def positive_int(text: str) -> int:
    """Parse an integer of at least 1."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def count(text: str) -> int:
    """Parse an integer of at least 0."""
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return value


def share(text: str) -> float:
    """Parse a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return value


def positive_float(text: str) -> float:
    """Parse a finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def port(text: str) -> int:
    """Parse a TCP port."""
    if not 0 < (value := int(text)) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not a port, 1 to 65535")
    return value


# argparse shows the function's name in its messages
positive_int.__name__ = count.__name__ = port.__name__ = "int"
positive_float.__name__ = share.__name__ = "number"
