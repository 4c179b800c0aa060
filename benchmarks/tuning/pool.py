"""A pool of schedules of each kernel, measured once, that cost models choose from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from nnmeter_nas.backends.host import one_thread
from nnmeter_nas.backends.tvm.compiling import fuse, this_machine
from nnmeter_nas.backends.tvm.cost_models import stores
from nnmeter_nas.backends.tvm.records import open_records, records_of, seconds_of, trials_of
from nnmeter_nas.backends.tvm.tuning import Progress, kernels_to_tune, tune
from nnmeter_nas.kernels.configuration import FloatArray
from nnmeter_nas.readers.onnx.writer import to_onnx

from .kernels import kernel_graph


class Pool(NamedTuple):
    """Schedules of a kernel that were measured.

    Attributes:
        kernel: its name.
        module: TVM's module of the kernel.
        features: of the stores of each schedule, (stores, features).
        seconds: of each schedule.
    """

    kernel: str
    module: Any
    features: list[FloatArray]
    seconds: FloatArray


def measured_pool(kernel: str, size: int, folder: Path, console: Console) -> Pool:
    """Measure ``size`` schedules of one of ``KERNELS``, except those whose records are in ``folder``.

    If there are more records than that, all are in the pool.

    TVM's evolution proposes them, fresh draws and changes of what was quick so far; no cost model chooses.
    """
    with one_thread():
        target, records = this_machine(), open_records(folder)
        tasks = kernels_to_tune(fuse(to_onnx(kernel_graph(kernel)), target), target)
        task = max(tasks, key=lambda one: len(records_of(records, one.dispatched[0])))
        module = task.dispatched[0]
        held = len(trials_of(records_of(records, module)))

        def tell(found: Progress) -> None:
            console.print(f"{kernel}: {held + found.trials} of {size} schedules measured")

        tune([task], target, records, size - held, tell, seed=held, model="random")
        known = trials_of(records_of(records, module))
        candidates = [one.as_measure_candidate() for one in known]
        seconds = np.array([seconds_of(one.run_secs) for one in known])
        return Pool(kernel, module, stores(module, candidates), seconds)
