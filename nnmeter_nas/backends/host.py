"""The speed of this machine: how long two fixed pieces of work take right now.

On a shared machine, and on one that changes its clock, the same network takes half as long again for
milliseconds or minutes at a time. What a neighbour takes away differs: large networks slow down as a product
of matrices larger than the cache of a core does, and small ones, which are mostly calls, as many small
products do. Of six pieces of work that were tried, these two followed twelve networks most closely.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

#: Side of the large matrices; side of the small ones, and products of those in a piece of work.
_LARGE, _SMALL, _PRODUCTS = 384, 48, 60
#: Pieces of work that only warm up, and those that count.
_WARMING, _COUNTING = 1, 3
#: The machine counts as undisturbed where they take what they take in this share of the cases.
UNDISTURBED_SHARE = 0.05
#: What tells libraries how many threads to use.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TVM_NUM_THREADS")


def cpu_ms(run: Callable[[], object]) -> float:
    """Call ``run``; return the CPU time of this thread in ms."""
    start = time.thread_time_ns()
    run()
    return (time.thread_time_ns() - start) / 1e6


def random_input(shape: Sequence[int], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    """An input of a model, the same each time; zeros unless it is of floats, as others may be indices."""
    if not np.issubdtype(np.dtype(dtype), np.floating):
        return np.zeros(shape, dtype)
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


class Speed(NamedTuple):
    """What the pieces of work take, in ms.

    Attributes:
        large_ms: a product of two large matrices.
        small_ms: many products of two small ones.
    """

    large_ms: float
    small_ms: float


class SpeedWatch:
    """Watches the speed of this machine while a process measures. Numbers need one thread of BLAS."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        large, small = (random.random((side, side), dtype=np.float32) for side in (_LARGE, _SMALL))
        self._works = _products(large, 1), _products(small, _PRODUCTS)
        self.now()

    def now(self) -> Speed:
        """The speed right now: the least of a few.

        The first does not count: after a network that ends with large dense layers, as VGG does, products are
        up to twice as slow for a millisecond or two. Counted, they made VGG look 40 % quicker than it is.
        """
        least = []
        for work in self._works:
            for _ in range(_WARMING):
                work()
            least.append(min(cpu_ms(work) for _ in range(_COUNTING)))
        return Speed(*least)


def _products(matrix: npt.NDArray[np.float32], times: int) -> Callable[[], None]:
    """Work that multiplies a matrix with itself so often."""
    product = np.empty_like(matrix)

    def work() -> None:
        for _ in range(times):
            np.matmul(matrix, matrix, out=product)

    return work


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
