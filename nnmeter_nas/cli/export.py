"""``nnmeter-nas export``: write an architecture that a search found as an ONNX file."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from .. import load_latency_predictor
from ..files import write_bytes
from ..search.rebuild import Architecture, load_architecture, rebuild, to_onnx
from .arguments import new_file
from .commands import set_command
from .messages import note, warn

_EPILOG = """\
ARCHITECTURE is a file of a search's folder: best/1.json is the network of the best metric, the others are the
rest of the Pareto front. The file that is written is read back, and its latency compared with the network's.
A space of your own (module:attribute) is looked for where it was in the search: run this in the same folder.
It needs: pip install 'nnmeter_nas[search]'

examples:
  nnmeter-nas export run/best/1.json -o network.onnx
  nnmeter-nas export run/best/3.json --weights trained.pt -o small.onnx
"""
#: Relative difference above which two latencies differ; relative difference that a table's latency may have.
_SAME, _RECORDED = 1e-6, 1e-2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill in the command."""
    set_command(parser, run, _EPILOG)
    parser.add_argument("architecture", type=Path, metavar="ARCHITECTURE", help="such as RUN/best/1.json")
    parser.add_argument(
        "-o",
        "--output",
        type=new_file,
        metavar="FILE",
        help="the ONNX file to write, whole or not at all (default: beside ARCHITECTURE)",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="trained weights: torch.save(network.state_dict(), FILE); without, they are random",
    )


def run(options: argparse.Namespace) -> int:
    """Build the network, export it, read it back, and write it."""
    output = options.output or options.architecture.with_suffix(".onnx")
    architecture = load_architecture(options.architecture)
    network = rebuild(architecture, options.weights)
    model = to_onnx(network, architecture)
    found = [_latency(network, model, architecture, name) for name in architecture.hardware]
    write_bytes(output, model.SerializeToString())
    print(f"Saved {output}{': ' if found else ''}{', '.join(found)}")
    if options.weights is None:
        note("its weights are random; train the network, or pass --weights")
    return 0


def _latency(network: Any, model: Any, architecture: Architecture, name: str) -> str:
    """Describe the latency of the model to be written; warn if it differs from the expected one."""
    hardware, recorded = architecture.hardware[name], architecture.values[name]
    device = hardware.device
    predictor = load_latency_predictor(device, hardware.pack_version)
    wanted = predictor.predict(network, model_type="torch", input_shape=architecture.input_shape)
    exported = predictor.predict(model, model_type="onnx")
    if not math.isclose(exported, wanted, rel_tol=_SAME):
        warn(
            f"the file takes {exported:.4g} ms on {device} and the network {wanted:.4g} ms: torch's exporter "
            "merges operators that do the same twice, and writes some in another way"
        )
    if not math.isclose(wanted, recorded, rel_tol=_RECORDED):
        warn(
            f"the network takes {wanted:.4g} ms on {device}, and the search predicted {recorded:.4g} ms: the "
            "predictor pack or the space is not what it was"
        )
    return f"{exported:.4g} ms on {device}"
