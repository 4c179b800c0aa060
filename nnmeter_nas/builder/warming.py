"""Find how much less small networks take than their kernels: :class:`~nnmeter_nas.packs.warmth.Warmth`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..kernels.configuration import FloatArray
from ..packs.warmth import COLD, Warmth
from ..training.table import KernelTable
from .fitting import CrossFitted, cross_fitted, is_network, predicted, quick_fit

#: Networks may be warm below the latency that this share of them are below.
_BELOW = 0.25
#: Exponents are tried in steps, and last around the best of them.
_STEPS, _AROUND = np.linspace(0.1, 1.0, 10), (-0.05, 0.05)
#: A device has no warmth unless this share of the error vanishes with it.
_GAIN = 0.03


def fit_warmth(table: KernelTable, source: npt.NDArray[np.int64], seed: int) -> Warmth:
    """Find the warmth with which measured networks and kernels agree best.

    The exponent rises for as long as a fit to both comes nearer to the networks.

    Args:
        table: networks and kernels.
        source: the network, or lone kernel, that each of them belongs to.
        seed: decides the fits.
    """
    whole = is_network(table)
    measured = table.measured(str(table.devices[0]))[whole]
    below, every = float(np.quantile(measured, _BELOW)), np.arange(len(table.ids))
    least_ms = float(measured.min())

    def error(exponent: float) -> float:
        warmth = Warmth(below, exponent, least_ms)
        network = quick_fit(as_in_large(table, source, warmth), every, seed, members=1)
        return float(np.abs(np.log(warmth.ms(predicted(network, table)[0][whole]) / measured)).mean())

    errors = {0.0: error(0.0)}
    for exponent in _STEPS.round(2).tolist():
        errors[exponent] = error(exponent)
        if errors[exponent] > min(errors.values()):
            break
    best = min(errors, key=errors.__getitem__)
    errors |= {near: error(near) for step in _AROUND if (near := round(best + step, 2)) > 0}
    best = min(errors, key=errors.__getitem__)
    return Warmth(below, best, least_ms) if errors[best] < (1 - _GAIN) * errors[0.0] else COLD


def as_in_large(table: KernelTable, source: npt.NDArray[np.int64], warmth: Warmth) -> KernelTable:
    """The table with the latencies that its kernels would have in a large network.

    What was measured alone is as warm as a network that takes as little.
    """
    sums = warmth.sums(_of_runs(table.measured(str(table.devices[0])), source))
    return replace(table, latency_ms=table.latency_ms / warmth.share(sums)[:, None])


def _of_runs(ms: FloatArray, source: npt.NDArray[np.int64]) -> FloatArray:
    """What was run when each network or kernel was measured: the network that it belongs to, or itself."""
    runs = np.zeros(int(source.max()) + 1)
    np.maximum.at(runs, source, ms)
    return runs[source]


def cross_fitted_warm(
    table: KernelTable, source: npt.NDArray[np.int64], warmth: Warmth, seed: int
) -> CrossFitted:
    """Judge each network by a fit without it, as :func:`cross_fitted`, with the ``warmth`` that all tell."""
    whole, measured = is_network(table), table.measured(str(table.devices[0]))
    found = cross_fitted(as_in_large(table, source, warmth), source, seed)
    ms = found.ms * warmth.share(_of_runs(found.ms, source))
    errors = replace(found.errors, absolute=np.abs(np.log(ms[whole] / measured[whole])))
    return CrossFitted(ms, errors)
