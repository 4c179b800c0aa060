"""Search with a sampler that proposes one architecture at a time, and may propose what was tried before.

Such samplers know neither latencies nor what runs nothing. A proposal that runs nothing, or was tried before,
costs no trial: the sampler is told what is known of it. After :data:`PATIENCE` of them in a row, it gets a
random new architecture to try, or it might never find one.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from nnmeter_nas.costs.table import IntArray

from .tasks import Accuracies, Task

#: Proposals in a row that cost no trial, after which a random architecture is next.
PATIENCE = 10

Row = tuple[int, ...]
#: Accuracy and latency in ms.
Values = tuple[float, float]


class Sampler(Protocol):
    """Proposes architectures, as indices of candidates."""

    def ask(self) -> Row:
        """The next architecture."""
        ...

    def tell(self, values: Values | None, then: Row | None) -> None:
        """Take the outcome of what was asked for, None if it runs nothing; ``then`` is to be asked next."""
        ...


def search_with(sampler: Sampler, task: Task, known: Accuracies, trials: int, seed: int) -> IntArray:
    """The architectures that a sampler tries, in order, ``[trials, positions]``."""
    rng = np.random.default_rng(seed)
    tried: dict[Row, Values] = {}
    in_vain = 0
    while len(tried) < trials:
        row = sampler.ask()
        array = np.array([row])
        new = row not in tried and bool(task.problem.inside(array)[0])
        if new:
            tried[row] = float(known.reported(array)[0]), float(task.latency.values(array)[0])
        in_vain = 0 if new else in_vain + 1
        then = None
        if in_vain == PATIENCE:
            then, in_vain = _new(task, tried, rng), 0
        sampler.tell(tried.get(row), then)
    return np.array(list(tried))


def _new(task: Task, tried: dict[Row, Values], rng: np.random.Generator) -> Row:
    """A random architecture that runs and was not tried."""
    while True:
        row: Row = tuple(task.problem.draw(1, rng)[0].tolist())
        if row not in tried:
            return row
