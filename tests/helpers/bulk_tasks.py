"""Tasks for tests of bulk work, in a module that workers can import."""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path

from nnmeter_nas.benchmarks.packs import evaluation
from nnmeter_nas.cli import outcomes
from nnmeter_nas.errors import GraphError

#: The original functions; tests replace the modules' own in this process.
compare_range = evaluation.compare_range
predict_chunk = outcomes._predict_chunk


def compare_range_or_die(file_range: evaluation.FileRange) -> evaluation.Pairs:
    """Compare a range, but kill the process at the first range outside the first file."""
    first = min(Path(file_range.path).parent.glob("*.jsonl"))
    if Path(file_range.path) != first:
        die_once(Path(file_range.path).parent / "killed")
    return compare_range(file_range)


def die_once(marker: Path) -> None:
    """Kill this process unless ``marker`` shows that one was killed already."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def square(number: int) -> int:
    """Return the square."""
    return number * number


def die_at_three(number: int) -> int:
    """Return the square, but kill the process at 3."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(number)


def fail_at_two(number: int) -> int:
    """Return the square, but raise at 2."""
    if number == 2:
        raise GraphError("two is refused", node="two")
    return square(number)


def warn_each_time(number: int) -> int:
    """Return the square, with a warning that contains a number."""
    warnings.warn(f"{number} of 4 is odd or even, {number / 4:.2%}", UserWarning, stacklevel=1)
    return square(number)


def process_of(number: int) -> int:
    """Return the id of the process that runs the task."""
    return os.getpid()


def predict_chunk_or_die(order: outcomes.Order) -> list[outcomes.Done]:
    """Predict a chunk, but kill the process if ``killer.json`` is in it."""
    if any(Path(source.name).name == "killer.json" for source in order.models.sources):
        os.kill(os.getpid(), signal.SIGKILL)
    return predict_chunk(order)
