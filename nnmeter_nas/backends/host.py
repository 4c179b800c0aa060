"""The speed of this machine: how long a fixed piece of work takes right now.

On a shared machine, and on one that changes its clock, the same network takes half as long again for seconds
at a time. A product of matrices before and after it takes longer by about the same factor, so its time is
divided by that. The matrices are larger than the cache of a core: of the pieces of work that were tried,
smaller products, copies and Python code among them, this one followed nine networks most closely.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

#: Side of the matrices, and products of a piece of work: those that only warm up, and those that count.
_SIDE, _WARMING, _COUNTING = 384, 1, 3
#: What tells libraries how many threads to use.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TVM_NUM_THREADS")
_MATRIX = np.random.default_rng(0).random((_SIDE, _SIDE), dtype=np.float32)
_PRODUCT = np.empty_like(_MATRIX)


def cpu_ms(run: Callable[[], object]) -> float:
    """Call ``run``; return the CPU time of this thread in ms."""
    start = time.thread_time_ns()
    run()
    return (time.thread_time_ns() - start) / 1e6


def random_input(shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """An input of a model, the same each time."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def work_ms() -> float:
    """Do the piece of work; return the least CPU time of a product in ms. Numbers need one thread of BLAS.

    The first does not count: after a network that ends with large dense layers, as VGG does, products are up
    to twice as slow for a millisecond or two. Counted, they made VGG look 40 % quicker than it is.
    """
    for _ in range(_WARMING):
        _multiply()
    return min(cpu_ms(_multiply) for _ in range(_COUNTING))


def _multiply() -> None:
    np.matmul(_MATRIX, _MATRIX, out=_PRODUCT)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let processes that start now, and libraries that are first used now, compute with one thread."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
