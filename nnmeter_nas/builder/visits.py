"""Visits of models, and what they tell of the latency on the undisturbed machine.

On a shared machine a core runs at another speed from one moment to the next, and small models slow down in
another way than large ones. So each burst of runs is kept with the speed that the machine had around it, and
all are converted together, once there are enough of them to tell how models slow down.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..backends.base import KernelTime
from ..backends.host import UNDISTURBED_SHARE, Speed
from ..kernels.configuration import FloatArray

#: The relative error of a burst at which it starts to count less, and rounds of weighing anew.
_OUTLYING, _ROUNDS = 0.15, 10
#: How much it takes to learn that models do not slow down as the machine does: the sum of the squared
#: logarithms of speeds for which the data counts as much as the assumption.
_ASSUMED = 0.1


class Burst(NamedTuple):
    """Runs one after another.

    Attributes:
        ms: least latency of a run.
        speed: that of the machine before and after them.
    """

    ms: float
    speed: Speed


class Visit(NamedTuple):
    """One measurement of one model.

    Attributes:
        ms: latency in ms, at the speed that the machine had.
        kernels: the executed kernels, if the runtime tells them.
        bursts: the bursts of runs with the speed of this machine; none if it ran on another.
    """

    ms: float
    kernels: tuple[KernelTime, ...] | None
    bursts: tuple[Burst, ...] = ()

    @property
    def speed(self) -> Speed | None:
        """The speed that the machine had mostly; None if the model ran on another machine."""
        if not self.bursts:
            return None
        return Speed(*map(statistics.median, zip(*(burst.speed for burst in self.bursts), strict=True)))


@dataclass(frozen=True)
class Undisturbed:
    """This machine while its neighbours leave it alone, and how models slow down when they do not.

    A model slows down by the factors of both pieces of work, each to the power of its ``exponents``, and of
    ``exponents_of_small`` for each power of e by which the model is quicker than ``middle_ms``.

    Attributes:
        speed: that of the machine.
        middle_ms: the median latency of the models that were measured.
        exponents, exponents_of_small: as above.
    """

    speed: Speed
    middle_ms: float = 1.0
    exponents: tuple[float, float] = (1.0, 0.0)
    exponents_of_small: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, models: Iterable[Sequence[Visit]]) -> Undisturbed | None:
        """Learn it from the visits of each of some models; None if they ran on another machine.

        The exponents are fitted to how the bursts of a model differ from their mean: least squares, in which
        outliers count less (Cauchy), and which start from models that slow down as large products do.
        """
        bursts = [np.log(found) for visits in models if len(found := _usable(visits))]
        if not bursts:
            return None
        of_model = np.repeat(np.arange(len(bursts)), list(map(len, bursts)))
        typical = np.array([np.median(found[:, 0]) for found in bursts])
        middle = float(np.median(typical))
        ms, speeds = np.concatenate(bursts)[:, 0], np.concatenate(bursts)[:, 1:]
        smaller = np.maximum(middle - typical, 0.0)[of_model]
        columns = np.concatenate([speeds, speeds * smaller[:, None]], axis=1)
        assumed = np.array([*cls.exponents, *cls.exponents_of_small])
        weights: FloatArray = np.ones(len(ms))
        for _ in range(_ROUNDS):
            x, y = (_centred(part, of_model, weights) for part in (columns, ms[:, None]))
            gram = x.T @ (x * weights[:, None]) + _ASSUMED * np.eye(len(assumed))
            fitted = np.linalg.solve(gram, x.T @ (weights * y[:, 0]) + _ASSUMED * assumed)
            weights = 1 / (1 + ((y[:, 0] - x @ fitted) / _OUTLYING) ** 2)
        quick = np.exp(np.quantile(speeds, UNDISTURBED_SHARE, axis=0))
        first, second, *of_small = fitted.tolist()
        return cls(Speed(*quick.tolist()), math.exp(middle), (first, second), (of_small[0], of_small[1]))

    def latency(self, visits: Sequence[Visit]) -> float:
        """Latency of a model in ms on the undisturbed machine: the median of what its bursts tell of it.

        The visits must have bursts.
        """
        bursts = _usable(visits)
        slowness = bursts[:, 1:] / np.array(self.speed)
        smaller = max(0.0, math.log(self.middle_ms / float(np.median(bursts[:, 0]))))
        exponents = np.array(self.exponents) + np.array(self.exponents_of_small) * smaller
        return float(np.median(bursts[:, 0] / (slowness ** np.maximum(exponents, 0.0)).prod(axis=1)))

    def to_entry(self) -> dict[str, Any]:
        """The numbers, for a file."""
        return {key: list(found) if isinstance(found, tuple) else found for key, found in vars(self).items()}

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any] | None) -> Undisturbed | None:
        """Inverse of :meth:`to_entry`; None stays None."""
        if entry is None:
            return None
        exponents, of_small = tuple(entry["exponents"]), tuple(entry["exponents_of_small"])
        return cls(Speed(*entry["speed"]), float(entry["middle_ms"]), exponents, of_small)


def latency_of(visit: Visit, undisturbed: Undisturbed | None) -> float:
    """What one visit says of its model's latency in ms; on the undisturbed machine, if it is this one."""
    return visit.ms if undisturbed is None else undisturbed.latency([visit])


def burst_of(record: Sequence[float]) -> Burst:
    """The burst of a record ``[ms, large_ms, small_ms]``."""
    ms, large_ms, small_ms = record
    return Burst(ms, Speed(large_ms, small_ms))


def to_record(burst: Burst) -> list[float]:
    """Inverse of :func:`burst_of`."""
    return [burst.ms, *burst.speed]


def _centred(columns: FloatArray, group: npt.NDArray[np.int64], weights: FloatArray) -> FloatArray:
    """Columns less the weighted mean of the group that each row belongs to."""
    totals = np.bincount(group, weights)
    means = np.stack([np.bincount(group, weights * column) / totals for column in columns.T], axis=1)
    return np.asarray(columns - means[group])


def _usable(visits: Sequence[Visit]) -> FloatArray:
    """The bursts of visits that took a time, ``[bursts, 3]``, as records."""
    records = [to_record(burst) for visit in visits for burst in visit.bursts]
    found = np.array(records, dtype=float).reshape(-1, 3)
    return np.asarray(found[np.isfinite(found).all(axis=1) & (found > 0).all(axis=1)])
