"""``nnmeter-nas tune``: compile a model with TVM for this machine, and tune its kernels."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from ..backends.tvm.cost_models import COST_MODELS, DEFAULT
from ..backends.tvm.interrupts import end_if_asked, interrupts_held
from ..drawing import new_chart, to_png
from ..errors import MeasurementError, SettingsError
from ..extras import load_extra
from ..files import lock_folder, write_bytes
from ..journal import Journal, read_journal
from .arguments import add_input_shape, count, positive_int
from .commands import set_command
from .messages import console, note

if TYPE_CHECKING:
    from ..backends.base import KernelTime
    from ..backends.tvm.compiling import Fused

_EPILOG = """\
The model is compiled for one thread of this machine. Then schedules of its kernels are compiled and
measured, chosen by a cost model that learns from each of them. The records are in the folder: a tuning that
was interrupted goes on by the same command, and so does one with more --trials. A hundred trials take some
minutes.

Cost models: ranking is trained to tell the quicker one of two schedules, by trials of all kernels of the
model; xgboost is TVM's own, which predicts times; random chooses blindly.

FOLDER holds model.so, the compiled model; run.py, which loads and runs it; trials.png, the best time against
trials; trials.jsonl, the same as data; records/, all trials.

example:
  nnmeter-nas tune model.onnx --trials 500 -o tuned
  python tuned/run.py
"""
#: Files of the folder.
LIBRARY, SCRIPT, PLOT, TRIALS = "model.so", "run.py", "trials.png", "trials.jsonl"
RECORDS, LOCK = "records", ".lock"
#: Results may differ from those of onnxruntime by so much; of the largest, if that is above 1.
TOLERANCE = 1e-4
#: The quickest of so many runs of the model counts: as many as take so many ms, between the two numbers. A
#: model of few ms needs many runs until one is undisturbed.
_LEAST_RUNS, _MOST_RUNS, _ENOUGH_MS = 5, 2000, 2000.0
#: One of so many of these runs is watched for the times of kernels, and at least so many in all.
_WATCHED, _LEAST_WATCHED = 20, 5
_SCRIPT = """\
\"\"\"Run the model that was tuned, on random inputs.\"\"\"
import pathlib

import numpy as np
import tvm
from tvm import relax

library = tvm.runtime.load_module(str(pathlib.Path(__file__).with_name("{library}")))
machine = relax.VirtualMachine(library, tvm.cpu())
inputs = [np.random.default_rng(0).standard_normal(shape).astype("float32") for shape in {shapes}]
found = machine["main"](*map(tvm.runtime.tensor, inputs))
print(*(output.numpy() for output in ([found] if hasattr(found, "numpy") else found)))
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill in the command."""
    set_command(parser, run, _EPILOG)
    parser.add_argument("model", type=Path, metavar="MODEL", help="an ONNX file")
    add_input_shape(parser, "shape of the input, such as 1 3 224 224, if the model leaves it open")
    parser.add_argument("--trials", type=positive_int, default=200, metavar="N",
                        help="schedules to measure in all, those of earlier runs included (default: 200)")
    parser.add_argument("-o", "--output", type=Path, default=Path("tuned"), metavar="FOLDER",
                        help="folder of the results (default: tuned)")
    parser.add_argument("--cost-model", choices=COST_MODELS, default=DEFAULT,
                        help=f"what chooses the schedules to measure (default: {DEFAULT})")
    parser.add_argument("--seed", type=count, default=0, metavar="S", help="of the search (default: 0)")


def run(options: argparse.Namespace) -> int:
    """Tune, check the results against onnxruntime's, and show what it brought."""
    from ..backends.host import one_thread

    content = options.model.read_bytes()
    try:
        with one_thread(), _locked(options.output), interrupts_held():
            return _tuned(options, content)
    except KeyboardInterrupt:
        if options.output.exists():
            note(f"interrupted; all trials are kept in {options.output}, and the same command goes on")
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder of the results. One that is made for it is removed if nothing comes to be in it.

    Raises:
        SearchError: another process has locked it, or it is a file.
    """
    is_new = not folder.exists()
    lock = lock_folder(folder, LOCK, "tuning")
    try:
        yield
    finally:
        lock.release()
        if is_new and {one.name for one in folder.iterdir()} <= {LOCK}:
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()


def _tuned(options: argparse.Namespace, content: bytes) -> int:
    from ..backends.tvm.backend import session
    from ..backends.tvm.compiling import compiled, fuse, this_machine, with_input_shape
    from ..backends.tvm.records import open_records, quickened
    from ..backends.tvm.stored import export, loaded, nodes_of, program

    folder: Path = options.output
    if options.input_shape:
        content = with_input_shape(content, options.input_shape)
    digest = hashlib.sha256(content).hexdigest()
    _check_same(folder / TRIALS, digest)
    note("compiling and measuring the model as it is")
    target = this_machine()
    fused = fuse(content, target)
    end_if_asked()
    before = _measured(session(program(content, fused=fused)))
    end_if_asked()
    records = open_records(folder / RECORDS)
    with Journal(folder / TRIALS) as journal:
        if not journal.records:
            journal.append({"model": digest})
        note(f"the model takes {before.ms:.4g} ms")
        _make_trials(options, fused, target, records, journal)
        trials = journal.records[1:]
    end_if_asked()
    note("compiling the tuned model")
    made = compiled(fused, target, records)
    export(made.program, folder / LIBRARY)
    end_if_asked()
    shapes = [list(shape) for shape in fused.shapes]
    write_bytes(folder / SCRIPT, _SCRIPT.format(library=LIBRARY, shapes=shapes).encode())
    tuned = session(loaded(folder / LIBRARY, nodes_of(fused, made), fused.shapes))
    off = _off(content, tuned)
    if not off <= TOLERANCE:
        raise MeasurementError(
            f"results of {folder / LIBRARY} are {off:.2g} off those of onnxruntime, and may be {TOLERANCE:g}"
        )
    after = _measured(tuned)
    console().print(_table(before, after, quickened(records, fused.module)))
    write_bytes(folder / PLOT, _plot(trials, options.model.name))
    print(f"{before.ms:.4g} ms before, {after.ms:.4g} ms after {_trials_in(records)} trials: "
          f"{before.ms / after.ms:.2f} times as fast; results are within {off:.1g} of onnxruntime's")
    note(f"run it with: python {folder / SCRIPT}")
    return 0


def _make_trials(
    options: argparse.Namespace, fused: Fused, target: Any, records: Any, journal: Journal
) -> None:
    """Make the trials that are missing, and tell the best time after each few of them."""
    from ..backends.tvm.tuning import Progress, kernels_to_tune, tune

    done = _trials_in(records)  # the journal lags behind: it gets a line after some trials, and they one each
    tasks = kernels_to_tune(fused, target)
    missing = max(0, options.trials - done)
    first = "; first, each kernel is measured as it comes" if missing and not done else ""
    note(f"{missing} trials of {len(tasks)} kernels to go{first}")
    seed, model = options.seed + done, options.cost_model
    status = Console(stderr=True, markup=False).status("starting TVM's tuner")

    def prepare(number: int) -> None:
        status.update(f"preparing kernel {number + 1} of {len(tasks)}")

    def tell(found: Progress) -> None:
        made = done + found.trials
        journal.append({"trials": made, "best_ms": found.best_ms, "kernel": found.kernel})
        kernel = f" ({found.kernel})" if found.kernel else ""
        note(f"{made} of {options.trials} trials: {found.best_ms:.4g} ms{kernel}")
        status.update(f"{made} of {options.trials} trials")

    with status:
        tune(tasks, target, records, missing, tell, seed, model, prepare)


def _trials_in(records: Any) -> int:
    from ..backends.tvm.records import trials_of

    return len(trials_of(records.get_all_tuning_records()))


class _Measured(NamedTuple):
    """What a model takes in ms, and what its kernels do."""

    ms: float
    kernels: list[KernelTime]


def _measured(session: Any) -> _Measured:
    session.run()
    runs = round(min(_MOST_RUNS, max(_LEAST_RUNS, _ENOUGH_MS / max(session.run(), 1e-3))))
    ms = min(session.run() for _ in range(runs))
    watched = max(_LEAST_WATCHED, runs // _WATCHED)
    return _Measured(ms, session.kernels(watched) if hasattr(session, "kernels") else [])


def _check_same(path: Path, digest: str) -> None:
    """Refuse a folder that another model was tuned in.

    Raises:
        SettingsError: there are trials of another model.
    """
    records = read_journal(path)
    if records and records[0].get("model") != digest:
        raise SettingsError(f"output={path.parent} holds trials of another model; give another folder")


def _off(content: bytes, session: Any) -> float:
    """How far the results of a model are from those of onnxruntime; of the largest, if that is above 1."""
    runtime = load_extra("onnxruntime", "tvm", "checking the results")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    reference = runtime.InferenceSession(content, options, ["CPUExecutionProvider"])
    feeds = {one.name: value for one, value in zip(reference.get_inputs(), session.inputs, strict=True)}
    pairs = zip(reference.run(None, feeds), session.results(), strict=True)
    return max(float(np.abs(a - b).max() / max(1.0, np.abs(a).max())) for a, b in pairs)


def _table(before: _Measured, after: _Measured, tuned: Collection[str]) -> Table:
    """Make a table of the kernels before and after, costliest first; ``tuned`` ones have got a schedule."""
    now = {(kernel.operators, kernel.kind): kernel.ms for kernel in after.kernels}
    table = Table(title="kernels before and after tuning", title_justify="left")
    for heading in ("operators", "kernel"):
        table.add_column(heading, overflow="fold")
    for heading in ("before ms", "after ms", "times as fast"):
        table.add_column(heading, justify="right")
    for kernel in sorted(before.kernels, key=lambda one: -one.ms):
        ms = now.get((kernel.operators, kernel.kind))
        figures = ["", ""] if ms is None else [f"{ms:.4f}", f"{kernel.ms / ms:.2f}" if ms else ""]
        if kernel.kind not in tuned:  # the same code: its times differ by noise
            figures = [f"{kernel.ms:.4f}", "as it was"]
        table.add_row(", ".join(kernel.operators), kernel.kind, f"{kernel.ms:.4f}", *figures)
    left = sum(kernel.kind not in tuned for kernel in before.kernels)
    if left:
        table.caption = (
            f"{left} of {len(before.kernels)} kernels are as they were: no trial of them was "
            "quicker, or none was made yet, as the costliest kernels come first"
        )
    return table


def _plot(trials: Sequence[Mapping[str, Any]], name: str) -> bytes:
    """Draw the best time against trials; return a PNG."""
    chart = new_chart(7.0, 4.0, dpi=130)
    axes = chart.subplots()
    axes.step([one["trials"] for one in trials], [one["best_ms"] for one in trials], where="post")
    axes.set_xlabel("trials")
    axes.set_ylabel("best time of all kernels (ms)")
    axes.set_title(name)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    return to_png(chart)
