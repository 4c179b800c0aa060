"""Chunks of work for tests, in a module that workers can import."""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path

from nnmeter_nas.benchmarks.packs import evaluation
from nnmeter_nas.errors import GraphError

#: As it is in any process that has not been tampered with.
compare_range = evaluation.compare_range


def compare_range_or_die(file_range: evaluation.FileRange) -> evaluation.Pairs:
    """Compare a range; the first one that anyone looks at outside the first file kills."""
    first = min(Path(file_range.path).parent.glob("*.jsonl"))
    if Path(file_range.path) != first:
        die_once(Path(file_range.path).parent / "killed")
    return compare_range(file_range)


def die_once(marker: Path) -> None:
    """Kill this process if no other has been killed for ``marker``."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def square(number: int) -> int:
    """What it says."""
    return number * number


def die_at_three(number: int) -> int:
    """The square, except that 3 always kills."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(number)


def fail_at_two(number: int) -> int:
    """The square, except that 2 is refused."""
    if number == 2:
        raise GraphError("two is refused", node="two")
    return square(number)


def warn_each_time(number: int) -> int:
    """The square, with a warning that has a figure in it."""
    warnings.warn(f"{number} of 4 is odd or even, {number / 4:.2%}", UserWarning, stacklevel=1)
    return square(number)


def process_of(number: int) -> int:
    """The process that works on it."""
    return os.getpid()
