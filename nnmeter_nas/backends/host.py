"""The speed of this machine: how long a fixed piece of work takes right now.

On a shared machine, and on one that changes its clock, the same network takes half as long again for seconds
at a time. A small product of matrices before and after each run takes longer by about the same factor, so a
run is divided by it. On a virtual machine with busy neighbours, the two halves of six visits then agreed
within 5 % for 96 % of 24 networks, and for 75 % by the least CPU time of all runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

#: Side and number of the products; they take some tenths of a millisecond.
_SIDE, _PRODUCTS = 128, 4
#: Pieces of work to find the speed of the undisturbed machine, and the share of them that is undisturbed.
_PIECES, _UNDISTURBED = 4000, 0.03
_MATRIX = np.random.default_rng(0).random((_SIDE, _SIDE), dtype=np.float32)


def cpu_ms(run: Callable[[], object]) -> float:
    """Call ``run``; return the CPU time of this thread in ms."""
    start = time.thread_time_ns()
    run()
    return (time.thread_time_ns() - start) / 1e6


def random_input(shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """An input of a model, the same each time."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def work_ms() -> float:
    """Do the piece of work; return the CPU time of this thread in ms. Numbers need one thread of BLAS.

    The first product does not count: after a large network it waits for its matrix. With it, work took half
    as long again as after a small network, so that large networks looked quicker than their kernels.
    """

    def work() -> None:
        for _ in range(_PRODUCTS):
            _MATRIX @ _MATRIX

    _MATRIX @ _MATRIX
    return cpu_ms(work)


def undisturbed_ms() -> float:
    """What the piece of work takes on the undisturbed machine, in ms; found in about a second."""
    return float(np.quantile([work_ms() for _ in range(_PIECES)], _UNDISTURBED))
