"""``nnmeter-nas build``: measure this machine, and make a predictor of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ..backends import BACKENDS
from .arguments import add_input_shape, count, positive_float
from .commands import set_command
from .messages import console, in_flags, note
from .models import input_shape_of
from .rounds import shown_rounds

if TYPE_CHECKING:
    from ..builder.plan import Plan
    from ..builder.verify import Model, Verified

_EPILOG = """\
The command makes random networks of the blocks that people use, runs them on this machine with one thread, or
on a phone, and finds out which operators the runtime fuses and how long each kernel takes. It stops when more
networks no longer help, or after --minutes of measuring. After each round it prints how many of the networks
that it was not trained on are predicted within 5 and 10 %, and for how many the machine itself repeats its
latency so well: no predictor can do better. Measure on a quiet machine.

Everything measured is in the workspace, and report.html, which shows what the build found so far. A build
that was interrupted goes on where it stopped.

examples:
  nnmeter-nas build my-laptop --backend onnxruntime
  nnmeter-nas predict model.onnx --predictor my-laptop
  nnmeter-nas build my-laptop --verify model.onnx another.onnx
  nnmeter-nas build my-phone --backend tflite-adb --benchmark-model ./benchmark_model --taskset f0
"""

def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill in the command."""
    set_command(parser, run, _EPILOG)
    parser.add_argument("name", metavar="DEVICE", help="name of your device")
    parser.add_argument("--backend", default="onnxruntime", metavar="BACKEND",
                        help=f"what runs the networks: {', '.join(BACKENDS)}, or module:Class of your own "
                             "(default: onnxruntime)")
    parser.add_argument("--tuned", action="store_const", const="yes",
                        help="with --backend tvm: tune the kernels of each network before it is measured")
    parser.add_argument("--workspace", type=Path, metavar="FOLDER",
                        help="folder of the measurements (default: build-DEVICE)")
    parser.add_argument("--minutes", type=positive_float, default=5.0, metavar="M",
                        help="about so many minutes of measuring at most; fits take longer (default: 5)")
    parser.add_argument("--networks", type=count, default=400, metavar="N",
                        help="networks to measure at most (default: 400)")
    parser.add_argument("--seed", type=count, default=0, metavar="S", help="of the networks (default: 0)")
    _add_phone_arguments(parser)
    parser.add_argument("--verify", type=Path, nargs="+", metavar="MODEL",
                        help="model files to measure and compare with what the predictor says of them")
    parser.add_argument("--nn-meter-results", type=Path, metavar="FOLDER",
                        help="also write the rules and kernels that were found as nn-Meter's builder does")
    add_input_shape(parser, "shape of the input of these models, such as 1 3 224 224, if they leave it open")


def _add_phone_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a backend can be told."""
    phone = parser.add_argument_group("a phone over adb, with --backend tflite-adb")
    phone.add_argument("--serial", metavar="S", help="serial number or address of the phone, as adb devices "
                                                     "shows it (default: the only one)")
    phone.add_argument("--benchmark-model", metavar="PATH",
                       help="TFLite's benchmark_model: a file here, or an absolute path on the phone "
                            "(default: /data/local/tmp/benchmark_model there)")
    phone.add_argument("--delegate", choices=("none", "xnnpack", "gpu", "nnapi"),
                       help="what runs the networks (default: xnnpack, which is TFLite's own default)")
    phone.add_argument("--threads", metavar="N", help="threads of a run (default: 1)")
    phone.add_argument("--taskset", metavar="MASK", help="cores to run on, a mask in hex such as f0")


def _backend_options(options: argparse.Namespace) -> dict[str, str]:
    """What the backend was told."""
    names = ("tuned", "serial", "benchmark_model", "delegate", "threads", "taskset")
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _say_once() -> Callable[[str], None]:
    """A function that prints a remark unless it did so before."""
    said = set[str]()

    def say(text: str) -> None:
        if text not in said:
            note(text)
        said.add(text)

    return say


def run(options: argparse.Namespace) -> int:
    """Build, show each round, and verify if asked to."""
    from ..builder.build import build
    from ..builder.plan import LEAST_ROUND, Plan
    from ..builder.verify import read_models, write_verified
    from ..builder.workspace import REPORT, VERIFIED
    from ..errors import DeviceLostError

    if options.input_shape and not options.verify:
        options.parser.error("argument --input-shape: it is that of models to verify; add --verify MODEL")
    round_size = max(LEAST_ROUND, min(Plan.round_size, options.networks))
    plan = Plan(options.minutes, options.networks, round_size, seed=options.seed)
    folder = options.workspace or Path(f"build-{options.name}")
    shape = input_shape_of(options)
    models, unread = read_models(options.verify or [], shape)  # before anything is measured
    for name, reason in unread.items():
        note(f"{name} cannot be verified: {in_flags(reason, ['input_shape'])}")
    if unread and not models:
        return 1
    say, told = _say_once(), _backend_options(options)
    try:
        with shown_rounds() as (show, tell):
            target = build(options.name, options.backend, folder, plan, show, tell, say, told)
    except KeyboardInterrupt:
        note(f"interrupted; all measurements in {folder} are kept, and the same command goes on")
        raise
    except DeviceLostError:
        if folder.exists():
            note(f"all measurements in {folder} are kept, and the same command goes on")
        raise
    print(f"{options.name} is stored in {target}")
    print(f"the report is in {folder / REPORT}")
    if options.nn_meter_results is not None:
        from ..compat.builder.from_build import write_build_results

        written = write_build_results(folder, options.nn_meter_results)
        print(f"{len(written)} result files of nn-Meter's are in {options.nn_meter_results}")
    if models:
        with Console(stderr=True, markup=False).status("starting") as status:
            found, faults = _verified(options, folder, plan, models, status.update, say)
        if found:
            write_verified(folder / VERIFIED, found)
            _print_verified(found)
            print(f"the table is in {folder / VERIFIED}")
        for name, reason in faults.items():
            note(f"{name} could not be verified: {reason}")
        return 1 if faults or unread else 0
    note(f"use it with: nnmeter-nas predict MODEL --predictor {options.name}")
    return 0


def _verified(
    options: argparse.Namespace,
    folder: Path,
    plan: Plan,
    models: Sequence[Model],
    tell: Callable[[str], None],
    say: Callable[[str], None],
) -> tuple[list[Verified], dict[str, str]]:
    """Measure and predict the models that were named; also what went wrong with some."""
    from ..backends import load_backend
    from ..builder.attached import in_use
    from ..builder.build import worker_of
    from ..builder.verify import verify
    from ..builder.visits import Undisturbed
    from ..builder.workspace import UNDISTURBED, read_device
    from ..predictor import load_latency_predictor

    told = _backend_options(options)
    predictor, backend = load_latency_predictor(options.name), load_backend(options.backend, told)
    undisturbed = Undisturbed.from_entry(read_device(folder).get(UNDISTURBED))
    with in_use(backend, say), worker_of(backend, options.backend, plan.limit_s, told) as running:
        return verify(predictor, backend, running, models, 2 * plan.visits, tell, undisturbed)


def _print_verified(rows: Sequence[Verified]) -> None:
    """Print a table of the models, how many are within ±5 and ±10 %, and how well they are ranked."""
    from ..builder.fitting import shares_within
    from ..training.accuracy import accuracy

    table = Table("model", title="predicted and measured latency", title_justify="left")
    for heading in ("measured ms", "predicted ms", "90 % interval", "off"):
        table.add_column(heading, justify="right")
    for row in rows:
        off = f"{100 * (row.predicted / row.measured - 1):+.1f} %"
        interval = f"{row.low:.4g} to {row.high:.4g}"
        table.add_row(row.name, f"{row.measured:.4g}", f"{row.predicted:.4g}", interval, off)
    console().print(table)
    five, ten = shares_within([row.predicted / row.measured for row in rows])
    repeats_5, repeats_10 = shares_within([row.repeats for row in rows])
    inside = 100 * sum(row.low <= row.measured <= row.high for row in rows) / len(rows)
    print(f"within ±5 %: {five} %, within ±10 %: {ten} %, inside the interval: {inside:.1f} %; "
          f"the machine repeats {repeats_5} % within ±5 %, {repeats_10} % within ±10 %")
    if len(rows) > 1:
        ranks = accuracy([row.predicted for row in rows], [row.measured for row in rows])["spearman"]
        print(f"rank correlation (Spearman): {ranks:.3f}")
