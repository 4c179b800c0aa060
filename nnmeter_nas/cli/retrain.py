"""``nnmeter-nas retrain``: train an architecture exported by a search, from scratch."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .. import load_latency_predictor
from .arguments import positive_float
from .commands import set_command
from .messages import console, note, warn
from .training import (
    add_flag,
    add_hardware_argument,
    add_task_arguments,
    add_training_arguments,
    check_task,
    fill_in,
    make_task,
    print_files,
    weight_settings,
    with_torch,
)

_EPILOG = """\
Beside the search.json of its search, an architecture needs no flags: device, reference, dataset and space are
those of the search unless a flag says otherwise. Elsewhere, give those of the search. Interrupted, the same
command goes on where it was.

example:
  nnmeter-nas retrain proxylessnas-output/architecture.json --epochs 60
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill in the command."""
    set_command(parser, run, _EPILOG)
    parser.add_argument("exported_arch_path", type=Path, metavar="ARCH",
                        help="JSON file: candidate by label, as `proxylessnas` and NNI export it")
    add_hardware_argument(parser, "device to predict the network's latency on")
    add_flag(parser, "--reference_latency", type=positive_float, metavar="MS",
             help="latency to compare the network's with")
    add_task_arguments(parser)
    add_training_arguments(parser, "retrain-output")


def run(options: argparse.Namespace) -> int:
    """Train an exported architecture, and print its accuracy and its latency."""
    if not options.exported_arch_path.is_file():
        options.parser.error(f"{options.exported_arch_path} is no file of an exported architecture")
    record = options.exported_arch_path.parent / "search.json"
    if taken := fill_in(options, _recorded(record, options.exported_arch_path)):
        note(f"as in {record}: {', '.join(f'{name} {_plain(value)}' for name, value in taken.items())}")
    check_task(options)
    load_latency_predictor(options.applied_hardware)  # fail on a wrong name before loading torch and NNI
    return with_torch(options, _retrain)


def _retrain(options: argparse.Namespace) -> int:
    from nnmeter_nas.estimators.proxyless import train_found
    from nnmeter_nas.estimators.proxyless_training import WeightSettings

    settings = WeightSettings(**weight_settings(options))
    found = train_found(
        make_task(options), options.exported_arch_path, options.applied_hardware, settings, options.output,
        options.checkpoint_path,
    )  # fmt: skip
    reference = options.reference_latency
    aim = "" if reference is None else f", reference {reference:g} ms"
    console().print(
        f"{found.accuracy:.2%} of the held-out images right, {found.latency_ms:.4g} ms on "
        f"{found.device}{aim}", soft_wrap=True,
    )  # fmt: skip
    if reference is not None and found.latency_ms > reference:
        warn("the network is slower than the reference")
    return print_files(found.files)


def _recorded(record: Path, exported: Path) -> dict[str, Any]:
    """Return what the record of a search says of its device, dataset and space, by destination of the flags.

    It is empty if there is no record, or if its search found another architecture than the exported one.
    """
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        if found["architecture"] != json.loads(exported.read_text(encoding="utf-8")):
            note(f"{record} is of another architecture and left out")
            return {}
        settings = found["settings"]
        stages = settings["stages"]
        return {
            "applied_hardware": found["device"],
            "reference_latency": found["reference_latency_ms"],
            "data_path": settings["data_path"] and Path(settings["data_path"]),
            **{name: settings[name] for name in ("dataset", "size", "resize_scale", "bn_momentum", "bn_eps")},
            "n_cell_stages": stages.get("depths"),
            "width_stages": stages.get("channels"),
            "stride_stages": stages.get("strides"),
            "dropout_rate": stages.get("dropout"),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # none, or a file of something else by that name


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
