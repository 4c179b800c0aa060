"""A trial: compile a schedule of a kernel and time it, in this process, by the CPU time of one thread.

Processes of their own, as TVM has them, import TVM for ten seconds and more before each few trials.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .imports import load_tvm
from .interrupts import end_if_asked
from .records import FAILED

#: A trial is so many bursts of at least so many seconds.
_BURSTS, _BURST_S = 3, 0.01


def measured_seconds(candidate: Any, target: Any) -> float:
    """Compile a candidate of TVM's search, and return the seconds of CPU time that a run of it takes.

    It runs on random values. A schedule that cannot be compiled or run takes ``FAILED`` seconds, as in TVM's
    records.

    Raises:
        KeyboardInterrupt: the user asked for it before, and it was held back.
    """
    end_if_asked()
    tvm = load_tvm()
    local_builder = load_tvm("tvm.s_tir.meta_schedule.builder.local_builder")
    try:
        module = local_builder.default_build(candidate.sch.mod, target, None)
        return _cpu_seconds(module, [_random_tensor(tvm, argument) for argument in candidate.args_info])
    except Exception:  # whatever a schedule makes TVM raise: it is no good one
        return FAILED


def _random_tensor(tvm: Any, argument: Any) -> Any:
    shape = [int(size) for size in argument.shape]
    values = np.random.default_rng(0).random(shape)
    return tvm.runtime.tensor(values.astype(str(argument.dtype)))


def _cpu_seconds(module: Any, arguments: Sequence[Any]) -> float:
    run = module["main"]
    run(*arguments)
    runs = max(1, round(_BURST_S / max(_seconds(run, arguments, 1), 1e-6)))
    return min(_seconds(run, arguments, runs) for _ in range(_BURSTS))


def _seconds(run: Callable[..., Any], arguments: Sequence[Any], runs: int) -> float:
    start = time.thread_time_ns()
    for _ in range(runs):
        run(*arguments)
    return (time.thread_time_ns() - start) / 1e9 / runs
