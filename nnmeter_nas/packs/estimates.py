"""Estimates: the latency of kernels that a pack has no predictor for, from their declared work.

The rate of a kernel type is what its work costs on the device: launches, values moved, weights and
multiply-adds. Rates are fitted to the pack's own kernel predictors, so they need no measurement. An operator
that was never measured takes the rate of the kernel type that it is like: a product of matrices that of a
convolution, SiLU that of h-swish, a transpose that of a channel shuffle. An estimate grows with the work, and
no kernel is free. It keeps a search honest, but it is no measurement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import dropwhile, product
from typing import Any, NamedTuple

import numpy as np

from ..kernels.batch import as_one_item
from ..kernels.configuration import FloatArray
from ..kernels.fusion import Kernel
from ..kernels.work import declared_work
from ..ops import OPERATORS, Shape, kernel_of
from .latency import KernelLatency, KernelPredictors

#: What an operator is like if no declaration says so.
_ANY = "hswish"
#: Kernel types whose rate stands in where a pack cannot price the type that an operator is like.
_STAND_INS = ("relu", "bn", "add", "conv", "fc", "dwconv")
#: Kernel types whose cost of a multiply-add stands in likewise.
_MULTIPLYING = ("conv", "fc", "dwconv")
_CHANNELS = (8, 16, 32, 64, 128, 256, 512)
_SIDES = (1, 7, 14, 28, 56, 112)
_FEATURES = (64, 128, 512, 1024, 4096)


class Rate(NamedTuple):
    """Cost in ms of a launch, of 10⁵ values moved (read, written, or weights), and of 10⁶ multiply-adds."""

    launch: float
    values: float
    macs: float

    def latency(self, launches: float, values: float, macs: float) -> float:
        """Latency in ms of so much work."""
        return self.launch * launches + self.values * values / 1e5 + self.macs * macs / 1e6


Rates = Mapping[str, Rate]


def rates_to_card(rates: Rates) -> dict[str, list[float]]:
    """Rates as they stand on a card: by kernel type, in the order of :class:`Rate`."""
    return {name: [float(f"{cost:.4g}") for cost in rate] for name, rate in rates.items()}


def rates_from_card(entry: Any) -> dict[str, Rate]:
    """Inverse of :func:`rates_to_card`.

    Raises:
        TypeError, ValueError, AttributeError: a rate is not three finite numbers of at least 0.
    """
    rates = {str(name): Rate(*map(float, costs)) for name, costs in entry.items()}
    if not all(0 <= cost < math.inf for rate in rates.values() for cost in rate):
        raise ValueError("a cost is not a finite number of at least 0")
    return rates


def fit_rates(predictors: KernelPredictors) -> dict[str, Rate]:
    """Fit the rate of each kernel type that ``predictors`` price, to predictions over a range of sizes.

    The fit minimises relative errors; no cost is negative.
    """
    rates = {}
    for name, kernels in _samples().items():
        found = predictors.latencies(kernels)
        known = [(kernel, ms) for kernel, (ms, _) in zip(kernels, found, strict=True) if ms]
        if known:
            work = np.array([_terms(kernel) for kernel, _ in known])
            latency_ms = np.array([ms for _, ms in known])
            rates[name] = Rate(*_non_negative_fit(work / latency_ms[:, None], np.ones(len(known))))
    return rates


def _non_negative_fit(terms: FloatArray, values: FloatArray) -> list[float]:
    """The least-squares weights of ``terms [n, few]``, none below zero.

    It tries every set of terms, as there are few. This spares prediction a dependency on SciPy.
    """
    best, least = np.zeros(terms.shape[1]), np.inf
    for used in product((False, True), repeat=terms.shape[1]):
        columns = np.flatnonzero(used)
        weights, *_ = np.linalg.lstsq(terms[:, columns], values, rcond=None)
        error = float(np.square(terms[:, columns] @ weights - values).sum())
        if (weights >= 0).all() and error < least:
            best = np.zeros(terms.shape[1])
            best[columns], least = weights, error
    return best.tolist()


def _samples() -> dict[str, list[Kernel]]:
    """Kernels of each type, over the sizes that networks have."""
    maps = [(1, channels, side, side) for channels in _CHANNELS for side in _SIDES]
    samples = {
        name: [_sample(name, [shape] * operands, shape) for shape in maps]
        for name, operands in (("relu", 1), ("bn", 1), ("hswish", 1), ("add", 2), ("channelshuffle", 1))
    }
    joined = [(shape, (1, 2 * shape[1], *shape[2:])) for shape in maps]
    samples["concat"] = [_sample("concat", [half, half], whole) for half, whole in joined]
    samples["conv"] = [
        _sample("conv", [(1, inner, side, side)], (1, outer, side, side), window)
        for inner, outer, side, window in product(_CHANNELS[::2], _CHANNELS[::2], _SIDES, (1, 3))
    ]
    samples["dwconv"] = [_sample("dwconv", [shape], shape, window) for shape in maps for window in (3, 5)]
    samples["fc"] = [
        Kernel("fc", ["fc"], {"out_features": outer}, [(1, inner)], [(1, outer)])
        for inner, outer in product(_FEATURES, _FEATURES)
    ]
    return samples


def _sample(op: str, operands: list[Shape], out: Shape, window: int = 0) -> Kernel:
    """One kernel; ``window`` is the side of a convolution's."""
    attrs: dict[str, Any] = {"groups": out[1] if op == "dwconv" else 1}
    if window:
        attrs.update(kernel=(window, window), stride=(1, 1), out_channels=out[1], padding="same")
    return Kernel(op, [op], attrs, operands, [out])


def estimate(kernel: Kernel, rates: Rates) -> float | None:
    """Latency of ``kernel`` in ms from its declared work, or None if ``rates`` are empty."""
    operator, work = OPERATORS.get(kernel.op), declared_work(kernel)
    like, passes = (_ANY, 1.0) if operator is None else (operator.like, operator.passes)
    rate = next((rates[name] for name in (like, *_STAND_INS) if name in rates), None)
    if rate is None:
        return None
    if work.macs and not rate.macs:
        rate = rate._replace(macs=max((rates[n].macs for n in _MULTIPLYING if n in rates), default=0.0))
    values = passes * (work.read + work.written) + work.weights
    return rate.latency(work.launches, values, work.macs) + _of_joined(kernel, rates)


def _of_joined(kernel: Kernel, rates: Rates) -> float:
    """Latency in ms of the operators that joined ``kernel``: a pass each; a batch norm folds."""
    joined = sum(kernel_of(op) != "bn" for op in kernel.joined)
    if not joined or "relu" not in rates:
        return 0.0
    written = sum(map(math.prod, kernel.out_shapes))
    return rates["relu"].latency(0, 2 * joined * written, 0)


def with_estimates(
    kernels: Sequence[Kernel], found: Sequence[KernelLatency], rates: Rates, predictors: KernelPredictors
) -> list[KernelLatency]:
    """Give each kernel that is unpredicted in ``found`` an estimate, if its work is known.

    No kernel of an unmeasured type gets less than a ReLU over the same values.
    """
    latencies = list(found)
    unsure = [i for i, latency in enumerate(found) if latency.basis in ("estimated", "unpredicted")]
    unsure = [i for i in unsure if not kernels[i].has_unknown_work]
    floors = predictors.latencies([_relu_over(kernels[i]) for i in unsure])
    for i, floor in zip(unsure, floors, strict=True):
        ms = found[i].ms if found[i].ms is not None else estimate(kernels[i], rates)
        if ms is not None:
            latencies[i] = KernelLatency(max(ms, floor.ms or 0.0), "estimated")
    return latencies


def _relu_over(kernel: Kernel) -> Kernel:
    """A ReLU over the largest tensor that ``kernel`` reads or writes whole."""
    work = declared_work(kernel)
    most = max(work.read, work.written)
    whole = [s for s in (*kernel.in_shapes, *kernel.out_shapes) if math.prod(s) <= most]
    sizes = list(dropwhile(lambda size: size == 1, max(whole, key=math.prod, default=(1,))))
    shape = (1, *sizes)  # the same, however many axes of size 1 come first
    return as_one_item(Kernel("relu", ["relu"], {}, [shape], [shape]))


def _terms(kernel: Kernel) -> tuple[float, float, float]:
    """What the costs of a :class:`Rate` multiply."""
    work = declared_work(kernel)
    return 1.0, (work.read + work.written + work.weights) / 1e5, work.macs / 1e6
